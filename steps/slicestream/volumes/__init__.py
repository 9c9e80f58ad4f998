"""Volumes, masks, training slices and run records: what the steps hand to one another."""
