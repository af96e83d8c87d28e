"""Recipes: YAML files with the flags of a training stage; see ``scripts/recipes``."""
