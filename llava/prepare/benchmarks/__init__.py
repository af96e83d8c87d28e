"""The published question and annotation files of the six benchmarks: ``python -m llava.prepare benchmarks``."""
