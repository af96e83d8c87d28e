"""A checkpoint ready for use: loaded, its template and end of turn known, generating."""
