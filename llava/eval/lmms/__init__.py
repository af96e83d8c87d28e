"""Checkpoints as models of lmms-eval."""
