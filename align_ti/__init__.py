"""Align-TI: distilling multimodal language models through token interactions (arXiv 2602.09483)."""
