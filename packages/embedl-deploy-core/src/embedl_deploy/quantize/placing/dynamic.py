"""The quantizer whose range is that of each call, and which quantizer a configuration asks for."""

import torch

from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.grid.dynamic import fake_quantize_dynamic
from embedl_deploy.quantize.placing.quantizer import Quantizer
from embedl_deploy.quantize.placing.stored_format import StoresFormat
from embedl_deploy.validation.checked import checked


class DynamicQuantizer(StoresFormat):
    """Quantizes and dequantizes one activation by the extremes of each call. It has no state, and no calibration.

    Args:
        config: How the tensor is quantized, with ``dynamic``.
        name: The tensor, for messages.

    Attributes:
        passing: Whether tensors pass as they are, as they do while others are calibrated.
    """

    @checked
    def __init__(self, config: TensorQuantConfig, name: str) -> None:
        super().__init__()
        self.config = config
        self.name = name
        self.passing = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x``, any shape, rounded to the 256 numbers that its own range has; ``x`` itself if ``passing``."""
        if self.passing:
            return x
        return fake_quantize_dynamic(x)  # type: ignore[no-any-return]  # operators are untyped callables

    def extra_repr(self) -> str:
        """The format."""
        return str(self.config)


def make_quantizer(config: TensorQuantConfig, name: str, *, is_weight: bool = False) -> Quantizer | DynamicQuantizer:
    """The quantizer that a configuration asks for.

    Args:
        config: How the tensor is quantized.
        name: The tensor, for messages.
        is_weight: Whether it is a weight.
    """
    return DynamicQuantizer(config, name) if config.dynamic else Quantizer(config, name, is_weight=is_weight)
