"""How errors accumulate over the tokens of an answer."""
