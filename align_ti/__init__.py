"""Align-TI: distilling multimodal language models through token interactions (arXiv 2602.09483)."""

import llava  # noqa: F401  # first: it quiets a message of a library that others import
