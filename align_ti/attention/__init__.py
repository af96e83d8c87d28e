"""Attention with hooks: attention maps, packed rows, and the ribbon of the candidate pass."""
