"""Data of the embedded miniature, and the place for downloaded data."""
