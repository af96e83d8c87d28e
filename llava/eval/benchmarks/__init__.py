"""The six benchmarks, one file each, with a loader and a scorer."""
