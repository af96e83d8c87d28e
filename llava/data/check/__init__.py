"""``python -m llava.data.check``: what is wrong with a data set, before hours are spent on it."""
