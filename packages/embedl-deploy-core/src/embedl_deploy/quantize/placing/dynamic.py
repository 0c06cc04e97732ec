"""The quantizers of activations whose scales are those of each call, and which quantizer a configuration asks for."""

import torch

from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.grid.call_blocks import fake_quantize_call
from embedl_deploy.quantize.grid.dynamic import fake_quantize_dynamic
from embedl_deploy.quantize.placing.quantizer import Quantizer
from embedl_deploy.quantize.placing.stored_format import StoresFormat
from embedl_deploy.validation.checked import checked


class DynamicQuantizer(StoresFormat):
    """Quantizes and dequantizes one activation by what each call holds alone. It has no state, and no calibration.

    Args:
        config: How the tensor is quantized: with ``dynamic``, or in an MX format, whose scales are those of blocks.
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
        """``x``, any shape, rounded to the numbers that its own range or ranges have; ``x`` itself if ``passing``."""
        if self.passing:
            return x
        if self.config.dynamic:
            return fake_quantize_dynamic(x)  # type: ignore[no-any-return]  # operators are untyped callables
        block, precision = self.config.scale_block, self.config.precision.value
        return fake_quantize_call(x, None, block, precision)  # type: ignore[no-any-return]  # as above

    def extra_repr(self) -> str:
        """The format."""
        return str(self.config)


class BlockQuantizer(Quantizer):
    """Quantizes and dequantizes one activation in blocks, by the scales of each call and one that is calibrated.

    Its ``scale`` is the scale of the tensor, a float32 scalar that is a factor of all scales of blocks. It stays in
    float32 when the model is converted.

    Args:
        config: How the tensor is quantized, in ``NVFP4``.
        name: The tensor, for messages.
    """

    @checked
    def __init__(self, config: TensorQuantConfig, name: str) -> None:
        super().__init__(config, name)
        self.tensor_scale = None  # it is the scale itself

    def _in_blocks(self, x: torch.Tensor) -> torch.Tensor:
        block, precision = self.config.scale_block, self.config.precision.value
        return fake_quantize_call(x, self.scale, block, precision)  # type: ignore[no-any-return]  # as above


def make_quantizer(config: TensorQuantConfig, name: str, *, is_weight: bool = False) -> Quantizer | DynamicQuantizer:
    """The quantizer that a configuration asks for.

    Args:
        config: How the tensor is quantized.
        name: The tensor, for messages.
        is_weight: Whether it is a weight.
    """
    in_blocks = config.precision.has_scale_format and not is_weight
    if in_blocks and config.precision.format.second_scale:
        return BlockQuantizer(config, name)
    if config.dynamic or in_blocks:
        return DynamicQuantizer(config, name)
    return Quantizer(config, name, is_weight=is_weight)
