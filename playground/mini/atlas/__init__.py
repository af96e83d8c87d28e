"""The sprites: one sheet of emoji pictures with their names and categories, and the script that made it."""
