"""Conversions, one a file."""
