"""From the published files to the four training mixes and the six benchmarks: ``python -m llava.prepare``."""
