"""What a training step costs, by method: counted FLOPs, wall time, peak memory."""
