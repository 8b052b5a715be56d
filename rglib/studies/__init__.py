"""Measurements beside the tables, each by a target of its own."""
