"""Cost of training steps and of inference, by method."""
