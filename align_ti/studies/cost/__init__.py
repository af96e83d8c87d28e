"""What a training step costs, method by method."""
