"""Registers container classes that hold tensors with torch, so that it can look into them.

Everything here that walks through inputs and outputs asks ``torch.utils._pytree``, as ``torch.export`` does; so a class
that is registered there is a structure like any other. Those of well-known libraries are registered by this package.
"""
