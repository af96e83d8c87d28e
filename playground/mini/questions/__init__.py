"""Questions about scenes, one kind per file: functions from a scene and a random generator to a ``Question``."""
