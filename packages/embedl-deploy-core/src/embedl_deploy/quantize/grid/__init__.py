"""Scales and grids: what is seen of a tensor, and the operators that round it."""
