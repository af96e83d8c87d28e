"""The losses, and the two linear heads that all of them go through."""
