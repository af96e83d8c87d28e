"""Questions about scenes, one kind a file: functions from a scene and a random stream to a ``Question``."""
