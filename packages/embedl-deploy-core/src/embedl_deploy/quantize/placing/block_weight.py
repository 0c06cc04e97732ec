"""Weights stored in formats whose scales are numbers of a format, too."""

from typing import Any

import torch

from embedl_deploy.quantize.grid.block_scales import stored_scales
from embedl_deploy.quantize.grid.blocks import dequantize_blocks
from embedl_deploy.quantize.grid.operators import quantize_values
from embedl_deploy.quantize.placing.quantizer import IntegerWeight, Quantizer, keeping_types
from embedl_deploy.quantize.placing.stored_format import StoresFormat


class BlockWeight(IntegerWeight):
    """A weight stored as numbers of its format, with scales that are numbers of theirs.

    All stay as they are stored when the model is converted; what it gives is of the model's type.

    Args:
        quantizer: The calibrated quantizer that it takes over from.
        weight: The weight that flowed into it.

    Attributes:
        values: The numbers, in a dtype that has them all, of the weight's shape.
        scale: One for each block of the last axis, E4M3, or the bytes of E8M0 (uint8).
        tensor_scale: A float32 factor of all scales, a scalar; ``None`` where the format has none.
        like: Has no elements, and the type of the model.
    """

    tensor_scale: torch.Tensor | None
    like: torch.Tensor

    def __init__(self, quantizer: Quantizer, weight: torch.Tensor) -> None:
        StoresFormat.__init__(self)
        self.config, self.name, self.readers = quantizer.config, quantizer.name, quantizer.readers
        row, block = self.precision.format, self.config.scale_block
        scale, of_tensor = quantizer.scale.detach(), quantizer.tensor_scale
        values = quantize_values(weight.detach().float(), scale, None, -1, block, self.precision)
        self.register_buffer("values", values.to(row.storage))
        self.register_buffer("scale", stored_scales(scale, self.precision, of_tensor))
        self.register_buffer("zero_point", None)
        self.register_buffer("tensor_scale", None if of_tensor is None else of_tensor.clone())
        self.register_buffer("like", torch.empty(0, dtype=weight.dtype, device=weight.device), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> "BlockWeight":
        like = fn(self.like)
        StoresFormat._apply(self, keeping_types(fn), recurse)  # type: ignore[no-untyped-call]  # of torch
        self.like = like
        return self

    def forward(self, _weight: torch.Tensor | None = None) -> torch.Tensor:
        """The dequantized weight, computed in float32."""
        weight: torch.Tensor = dequantize_blocks(
            *(self.values, self.scale, self.tensor_scale, self.config.scale_block, self.precision.value),
            self.like.dtype,
        )
        return weight


def stored_weight(quantizer: Quantizer, weight: torch.Tensor) -> IntegerWeight:
    """What stores a weight as the numbers that a quantizer rounds it to."""
    if quantizer.config.precision.has_scale_format:
        return BlockWeight(quantizer, weight)
    return IntegerWeight(quantizer, weight)
