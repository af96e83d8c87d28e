"""From the published annotation files to the paper's four training mixes: ``python -m llava.data.prepare``."""
