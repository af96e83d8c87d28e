"""Transition probabilities of many candidate tokens in one pass: layout, mask, passes, attention."""
