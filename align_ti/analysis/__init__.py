"""Looking at what distillation did: where models look, and how their losses went."""
