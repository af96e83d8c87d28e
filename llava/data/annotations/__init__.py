"""Read annotation files of any size as one memory-mapped table."""
