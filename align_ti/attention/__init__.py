"""Attention that can be watched and extended: maps, packed rows, the ribbon."""
