"""Errors that accumulate over the tokens of an answer."""
