"""A plug-in for lmms-eval that evaluates LLaVA-style checkpoints."""
