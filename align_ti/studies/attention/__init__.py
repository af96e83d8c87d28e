"""Attention to the image: instruction-relevance scores by layer, and attention maps."""
