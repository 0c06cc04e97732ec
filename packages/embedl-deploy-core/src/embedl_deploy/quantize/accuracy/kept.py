"""Takes changes of a module back: parameters and buffers as they were."""

import torch
from torch import nn

from embedl_deploy.quantize.placing.quantizer import Quantizer


class Kept:
    """The parameters and buffers of a module and its parts, to be put back.

    Values of parameters are not copied: a correction gives an operator new parameters, or a parameter new ``data``, and
    writes into neither. Buffers, such as scales and zero points, may be written into.

    Args:
        module: The module; its parts must stay the same objects.
    """

    def __init__(self, module: nn.Module) -> None:
        parts = list(module.modules())
        self._parameters = [(part, dict(part._parameters)) for part in parts]
        self._data = [(parameter, parameter.data) for parameter in module.parameters()]
        self._buffers = [(part, dict(part._buffers)) for part in parts]
        self._values = [(buffer, buffer.clone()) for buffer in module.buffers()]
        self._calibrated = [(part, part.calibrated) for part in parts if isinstance(part, Quantizer)]

    @torch.no_grad()
    def put_back(self) -> None:
        """Make the module what it was; may be called again after further changes."""
        for part, parameters in self._parameters:
            part._parameters.clear()
            part._parameters.update(parameters)
        for parameter, data in self._data:
            parameter.data = data
        for part, buffers in self._buffers:
            part._buffers.clear()
            part._buffers.update(buffers)
        for buffer, value in self._values:
            if not torch.equal(buffer, value):
                buffer.copy_(value)
        for quantizer, calibrated in self._calibrated:
            quantizer.calibrated = calibrated
