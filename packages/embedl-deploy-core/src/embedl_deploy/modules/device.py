"""The device of a module's tensors."""

from itertools import chain

import torch
from torch import nn


def device_of(*modules: nn.Module) -> torch.device:
    """The device of the first parameter or buffer of the first of the modules that has one; the processor if none has.

    A model whose tensors are on several devices is asked part by part, then as a whole.
    """
    tensors = (tensor for module in modules for tensor in chain(module.parameters(), module.buffers()))
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
