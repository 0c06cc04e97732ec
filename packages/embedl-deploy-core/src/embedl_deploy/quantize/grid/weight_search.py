"""Searches the ranges of a weight, one for each scale, for the least error."""

import math
from typing import NamedTuple

import torch

from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.grid.operators import dequantize_values, quantize_values
from embedl_deploy.quantize.grid.steps import Steps


class InputMoments(NamedTuple):
    """What is known of the inputs that the last axis of a weight is multiplied with.

    Attributes:
        mean: (K,).
        variance: (K,).
    """

    mean: torch.Tensor
    variance: torch.Tensor

    def by_group(self, weight: torch.Tensor, config: TensorQuantConfig) -> "InputMoments":
        """For each value of a weight, grouped as the weight is."""
        return InputMoments(*(groups_of(each.to(weight).expand_as(weight), config)[0] for each in self))

    def error(self, missed: torch.Tensor) -> torch.Tensor:
        """The expected square of Σ_j e_j·x_j for the errors e of groups, (N, values of each); (N,).

        Inputs are taken to be independent, so that it is Σ_j e_j²·var x_j + (Σ_j e_j·mean x_j)².
        """
        return (missed.square() * self.variance).sum(1) + (missed * self.mean).sum(1).square()


def groups_of(weight: torch.Tensor, config: TensorQuantConfig) -> tuple[torch.Tensor, tuple[int, ...]]:
    """The weight as (scales, values of each), and the shape of the scales."""
    shape = shape_of_scale(weight, config)
    if config.block_size is not None:
        size = _block(weight, config.block_size)
        padded = torch.nn.functional.pad(weight, (0, shape[-1] * size - weight.shape[-1]))
        return padded.reshape(-1, size), shape
    if config.per_channel:
        channels = weight.movedim(config.axis or 0, 0)
        return channels.reshape(channels.shape[0], -1), shape
    return weight.reshape(1, -1), shape


def shape_of_scale(weight: torch.Tensor, config: TensorQuantConfig) -> tuple[int, ...]:
    """The shape of a weight's scale: (), (C,), or that of the weight with its last axis in blocks."""
    if config.block_size is not None:
        return (*weight.shape[:-1], -(-weight.shape[-1] // _block(weight, config.block_size)))
    return (weight.shape[config.axis or 0],) if config.per_channel else ()


def _block(weight: torch.Tensor, asked: int) -> int:
    """Values in a block, which may be asked to be larger than the row."""
    return min(asked, max(weight.shape[-1], 1))


def best_amax(groups: torch.Tensor, amax: torch.Tensor, steps: Steps, inputs: InputMoments | None) -> torch.Tensor:
    """For each group of values the share of its largest magnitude with the least error.

    Args:
        groups: Values that share a scale, (N, values of each).
        amax: Their largest magnitudes, (N,).
        steps: How magnitudes become scales.
        inputs: What the values are multiplied with, as ``groups``; ``None`` for the least squared error of the values.
    """
    best, best_error = amax.clone(), torch.full_like(amax, math.inf)
    for share in steps.shares:
        candidate = amax * share
        scale = steps.scale(candidate).to(groups.dtype)
        q = quantize_values(groups, scale, None, 0, 0, steps.config.precision)
        missed = dequantize_values(q, scale, None, 0, 0) - groups
        error = missed.square().sum(1) if inputs is None else inputs.error(missed)
        better = error < best_error
        best, best_error = torch.where(better, candidate, best), torch.where(better, error, best_error)
    return best
