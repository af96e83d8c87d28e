"""The six benchmarks, one file each: how its files are read, and its scorer."""
