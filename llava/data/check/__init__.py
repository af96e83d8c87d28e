"""``python -m llava.data.check``: checks training data before a run."""
