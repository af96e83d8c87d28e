"""Inference: loading a checkpoint with its prompt template and end-of-turn rule, and generating answers."""
