"""Builds the four training mixes and the six benchmarks from the published files: ``python -m llava.prepare``."""
