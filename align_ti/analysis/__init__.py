"""Looking at what distillation did: where models look, how losses and errors went, what an answer costs."""
