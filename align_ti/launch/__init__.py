"""Start and supervise trainings: devices, nodes, gradient accumulation, launchers and signals."""
