"""``python -m llava.data.check``: check training data before a run."""
