"""The built-in miniature: emoji scenes, their annotations, and six benchmarks in the real file formats."""
