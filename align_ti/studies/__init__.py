"""What the paper measures: tables, figures, costs. Nothing in training depends on it."""
