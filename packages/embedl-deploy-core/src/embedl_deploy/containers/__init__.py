"""Structures that hold tensors, of classes that are not Python's: which of them torch is told how to look into.

Everything here that walks through inputs and outputs asks ``torch.utils._pytree``, as ``torch.export`` does; so a class
that is registered there is a structure like any other. Those of well-known libraries are registered by this package.
"""
