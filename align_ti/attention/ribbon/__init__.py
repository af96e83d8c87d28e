"""Attention of the candidate pass (the ribbon), one backend per file."""
