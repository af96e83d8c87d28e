"""Training stages 1 (projector) and 2 (instruction tuning) on transformers' Trainer."""
