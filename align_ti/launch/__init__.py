"""Starting trainings: devices, nodes, gradient accumulation, launchers, and the end of what was started."""
