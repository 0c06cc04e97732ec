"""Fusions, one family a file."""
