"""Checks the arguments of public functions against their annotations."""
