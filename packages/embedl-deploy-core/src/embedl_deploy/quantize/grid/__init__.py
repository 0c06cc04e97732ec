"""Scales and grids: observers of tensors, and the operators that round."""
