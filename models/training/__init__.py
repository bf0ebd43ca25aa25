"""Recipes that made the weights in `models/weights`."""
