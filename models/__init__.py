"""Flax networks, their weights, and the recipes that made the weights."""
