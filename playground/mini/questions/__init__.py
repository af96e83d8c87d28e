"""Questions about scenes, one kind a file: each function takes a scene and a random stream and gives a ``Question``."""
