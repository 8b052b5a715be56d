"""Restoring images: with trained networks, in the tables and by hand."""
