"""Takes changes of a module back: parts, parameters and buffers as they were."""

import torch
from torch import nn

from embedl_deploy.errors import QuantizationError
from embedl_deploy.graph.fingerprint import tensors_fingerprint
from embedl_deploy.quantize.placing.quantizer import Quantizer


class Kept:
    """The parts, parameters and buffers of a module, to be put back.

    Values of parameters are not copied, because that would take the memory of the model again: a correction gives an
    operator new parameters, or a parameter new ``data``, and writes into neither. Whether it has is seen by a
    fingerprint. Buffers, such as scales and zero points, may be written into.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        parts = list(module.modules())
        self._parts = [(part, dict(part._modules)) for part in parts]
        self._parameters = [(part, dict(part._parameters)) for part in parts]
        self._data = [(name, parameter, parameter.data) for name, parameter in module.named_parameters()]
        self._fingerprints = self._written()
        self._buffers = [(part, dict(part._buffers)) for part in parts]
        self._values = [(buffer, buffer.clone()) for buffer in module.buffers()]
        self._calibrated = [(part, part.calibrated) for part in parts if isinstance(part, Quantizer)]

    def _written(self) -> list[str]:
        return [tensors_fingerprint([(name, data)]) for name, _, data in self._data]

    def require_unwritten(self) -> None:
        """Make sure that the parameters of before still have their values.

        Raises:
            QuantizationError: One was written into, so that it cannot be put back.
        """
        now = zip(self._data, self._fingerprints, self._written(), strict=True)
        names = [name for (name, _, _), before, after in now if before != after]
        if names:
            raise QuantizationError(
                f"A correction wrote into {len(names)} of {len(self._data)} parameters, first {names[0]!r}, instead "
                "of replacing it, so it cannot be taken back. This is a fault of the correction: let it set a new "
                "nn.Parameter, as embedl_deploy.modules.with_parameters does.",
                tensor=names[0],
            )

    @torch.no_grad()
    def put_back(self) -> None:
        """Make the module what it was; may be called again after further changes.

        Raises:
            QuantizationError: See :meth:`require_unwritten`.
        """
        self.require_unwritten()
        for part, inside in self._parts:
            part._modules.clear()
            part._modules.update(inside)
        for part, parameters in self._parameters:
            part._parameters.clear()
            part._parameters.update(parameters)
        for _, parameter, data in self._data:
            parameter.data = data
        for part, buffers in self._buffers:
            part._buffers.clear()
            part._buffers.update(buffers)
        for buffer, value in self._values:
            if not torch.equal(buffer, value):
                buffer.copy_(value)
        for quantizer, calibrated in self._calibrated:
            quantizer.calibrated = calibrated
