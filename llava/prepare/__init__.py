"""Build the four training mixes and the six benchmarks from published files: ``python -m llava.prepare``."""
