"""Get and check the six benchmarks' question and annotation files: ``python -m llava.prepare benchmarks``."""
