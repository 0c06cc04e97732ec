"""Stubs for quantizers inside modules: empty and free of cost until quantization fills them."""

import torch
from torch import nn

from embedl_deploy.validation.checked import checked


class QuantStub(nn.Module):
    """A stub: the place of a quantizer inside a module.

    Empty (``quantizer is None``) it returns its input, the same object. Filled, it returns what the quantizer makes
    of the input; any module from a tensor to a tensor of the same shape will do.

    Attributes:
        amax: The largest magnitude that can occur here, where that is known beforehand, as it is of a softmax; such a
            place needs no calibration, which takes a smaller range only where this one would round a good part of the
            data to zero. ``None`` where it is not known.
    """

    quantizer: nn.Module | None

    @checked
    def __init__(self, quantizer: nn.Module | None = None, *, amax: float | None = None) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.amax = amax

    @property
    def enabled(self) -> bool:
        """Whether a quantizer stands here."""
        return self.quantizer is not None

    @property
    def observed(self) -> bool:
        """Whether a quantizer stands here that is being calibrated: it looks at every value that flows by."""
        return getattr(self.quantizer, "observer", None) is not None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Quantize and dequantize ``x``, or return it as it is."""
        return x if self.quantizer is None else self.quantizer(x)

    def extra_repr(self) -> str:
        """Say ``empty`` as long as nothing stands here."""
        return "" if self.enabled else "empty"


class WeightFakeQuantize(QuantStub):
    """A stub for the quantizer of a weight."""
