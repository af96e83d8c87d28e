"""Recipes: what a stage trains, in YAML files of flags; see ``scripts/recipes``."""
