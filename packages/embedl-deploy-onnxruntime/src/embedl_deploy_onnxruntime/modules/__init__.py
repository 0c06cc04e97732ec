"""Every module that this backend puts into a graph."""
