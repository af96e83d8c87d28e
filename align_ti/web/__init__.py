"""The web page: models side by side, and where they look."""
