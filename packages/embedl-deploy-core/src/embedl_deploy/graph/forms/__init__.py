"""Calls of functions and methods as the modules of ``torch.nn`` that they equal, by family."""
