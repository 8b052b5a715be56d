"""Measurements beside tables: each by a target of its own."""
