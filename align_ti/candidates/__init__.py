"""TPA's candidates: drawing them, laying them out, and running them through both models."""
