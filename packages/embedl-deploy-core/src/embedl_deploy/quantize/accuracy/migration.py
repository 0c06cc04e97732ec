"""Chooses the migration strength of SmoothQuant for each tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.grid.operators import dequantize_values, quantize_values
from embedl_deploy.quantize.grid.scales import grid_from_range, grid_of_weight

_SMALLEST = 1e-5
#: Strengths that are tried.
STRENGTHS = torch.linspace(0.0, 1.0, 21)

#: E[max z²] of 16 values of one normal distribution, of variance 1.
_LARGEST_OF_NORMAL = 4.5

#: A product that reads the tensor, and the format of its weight.
Reader = tuple[nn.Linear, TensorQuantConfig]


@dataclass
class ChannelStatistics:
    """What is known of the channels, the last axis, of a tensor.

    Attributes:
        largest: max|x_j|, (C,).
        squares: Σ x_j², (C,), float64.
        count: Values of each channel.
    """

    largest: torch.Tensor
    squares: torch.Tensor
    count: int

    @staticmethod
    def empty(like: torch.Tensor) -> "ChannelStatistics":
        """No values yet, of a tensor with the channels of ``like``."""
        zeros = torch.zeros(like.shape[-1], device=like.device)
        return ChannelStatistics(zeros, zeros.double(), 0)

    def add(self, x: torch.Tensor) -> None:
        """Take in values, (..., C)."""
        rows = x.detach().flatten(0, -2).float()
        self.largest = torch.maximum(self.largest, rows.abs().amax(0))
        self.squares = self.squares + rows.square().sum(0, dtype=torch.float64)
        self.count += rows.shape[0]


def migration_scale(statistics: ChannelStatistics, readers: Sequence[Reader], alpha: float) -> torch.Tensor:
    """max|x_j|^α / max|W_j|^(1−α), (C,)."""
    weights = torch.stack([operator.weight.abs().amax(0) for operator, _ in readers]).amax(0)
    largest = statistics.largest.to(weights)
    scale = largest.clamp(min=_SMALLEST) ** alpha / weights.clamp(min=_SMALLEST) ** (1 - alpha)
    # A channel that is always zero, or that no weight looks at, has nothing to move.
    return torch.where((largest == 0) | (weights == 0), 1.0, scale.clamp(min=_SMALLEST))


def best_migration_scale(
    statistics: ChannelStatistics, config: TensorQuantConfig, readers: Sequence[Reader]
) -> torch.Tensor | None:
    """The scale of the migration strength with the least expected error, or ``None`` if none is better than none.

    Args:
        statistics: Of the tensor.
        config: The tensor's format.
        readers: The products that read it.
    """
    best, least = None, expected_error(statistics, config, readers, torch.ones_like(statistics.largest))
    for alpha in STRENGTHS.tolist():
        scale = migration_scale(statistics, readers, alpha)
        error = expected_error(statistics, config, readers, scale)
        if error < least:
            best, least = scale, error
    return best


def expected_error(
    statistics: ChannelStatistics, config: TensorQuantConfig | None, readers: Sequence[Reader], scale: torch.Tensor
) -> float:
    """Mean squared error of the products' outputs, summed over outputs, when channels are divided by ``scale``.

    Rounding errors are taken to be independent of each other and of the values: s²/12 for a step of s. A tensor without
    a format has none.
    """
    squares = (statistics.squares / statistics.count).to(scale) / scale**2
    mantissa_bits = None if config is None else config.precision.format.mantissa_bits
    if config is None:
        rounding = torch.zeros_like(squares)
    elif mantissa_bits is not None:  # 2^mantissa_bits steps between one power of two and the next
        rounding = squares * 2.0 ** (-2 * (mantissa_bits + 1)) / 12
        if config.block_size is not None:
            rounding = torch.minimum(torch.maximum(rounding, _smallest_steps(squares, config)), squares)
    else:
        step = grid_from_range(0.0, float((statistics.largest.to(scale) / scale).max()), config).scale.to(scale)
        rounding = torch.minimum(step**2 / 12, squares)  # what is below half a step becomes zero
    error = 0.0
    for operator, weight_config in readers:
        weight = operator.weight.detach() * scale
        missed = _rounded(weight, weight_config) - weight
        error += float((missed.square().sum(0) * squares).sum() + (weight.square().sum(0) * rounding).sum())
    return error


def _smallest_steps(squares: torch.Tensor, config: TensorQuantConfig) -> torch.Tensor:
    """s²/12 for the smallest step s of each channel's block, (C,), by the block's largest value in the mean.

    Its square is at most the sum of the squares, and that of a normal distribution for channels that are alike.
    """
    blocks = squares.reshape(-1, config.scale_block)
    reach = torch.minimum(blocks.sum(1), _LARGEST_OF_NORMAL * blocks.amax(1)).sqrt()
    step = config.precision.smallest * reach / config.precision.high
    return (step**2 / 12).repeat_interleave(config.scale_block)


def _rounded(weight: torch.Tensor, config: TensorQuantConfig) -> torch.Tensor:
    grid = grid_of_weight(weight, config)
    axis, block = config.scale_axis, config.scale_block
    zero_point = None if grid.zero_point is None else torch.tensor(grid.zero_point, device=weight.device)
    q = quantize_values(weight, grid.scale, zero_point, axis, block, config.precision)
    return dequantize_values(q, grid.scale, zero_point, axis, block)
