"""The six benchmarks in miniature, in the file formats and folder layout of the real ones, one per file."""
