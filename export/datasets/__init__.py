"""Data sets: what a recipe's ``[data]`` names, prepared once and cached."""
