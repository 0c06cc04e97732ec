"""Examples of norms written out in different ways, and near misses."""

from collections.abc import Callable

import torch
from torch import nn

from embedl_deploy.patterns.examples import Example

Forward = Callable[["Written", torch.Tensor], torch.Tensor]


class Written(nn.Module):
    """A function of one tensor.

    Args:
        function: Computes the output from the module and the tensor.
        size: How many values its weight and bias have.
        names: Those that it has.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, function: Forward, size: int, *names: str) -> None:
        super().__init__()
        self.function = function
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.rand(size) + 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any tensor, to one of its shape."""
        return self.function(self, x)


def _llama(m: Written, x: torch.Tensor) -> torch.Tensor:
    h = x.to(torch.float32)
    h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)
    return m.weight * h.to(x.dtype)


def _t5(m: Written, x: torch.Tensor) -> torch.Tensor:
    spread = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
    return m.weight * (x * torch.rsqrt(spread + 1e-6))


def _gemma(m: Written, x: torch.Tensor) -> torch.Tensor:
    h = x.float()
    return (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6) * (1.0 + m.weight.float())).type_as(x)


def _rms(m: Written, x: torch.Tensor) -> torch.Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * m.weight


def _layer(m: Written, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return m.weight * (centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-5)) + m.bias


def _var_mean(m: Written, x: torch.Tensor) -> torch.Tensor:
    var, mean = torch.var_mean(x, dim=-1, unbiased=False, keepdim=True)
    return (x - mean) * torch.rsqrt(var + 1e-5) * m.weight + m.bias


def _over_channels(m: Written, x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(1, keepdim=True)
    var = (x - mean).pow(2).mean(1, keepdim=True)
    return m.weight[:, None, None] * ((x - mean) / torch.sqrt(var + 1e-6)) + m.bias[:, None, None]


def _rms_over_channels(m: Written, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6) * m.weight.view(1, -1, 1, 1)


def _outside(m: Written, x: torch.Tensor) -> torch.Tensor:
    return m.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + 1e-5) + m.bias


def _unbiased(_: Written, x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + 1e-5)


def _not_centred(m: Written, x: torch.Tensor) -> torch.Tensor:
    return x / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5) * m.weight


def _of_a_batch(_: Written, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean((0, 2, 3), keepdim=True)
    return centred / torch.sqrt(centred.pow(2).mean((0, 2, 3), keepdim=True) + 1e-5)


def _without_axis(_: Written, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1) + 1e-5)


def _read_twice(_: Written, x: torch.Tensor) -> torch.Tensor:
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
    return x * scale + scale


def _third_power(_: Written, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(4).mean(-1, keepdim=True) + 1e-5)


def _vectors(function: Forward, note: str, *names: str) -> Example:
    return Example(Written(function, 8, *names), (torch.randn(2, 5, 8),), note)


def _maps(function: Forward, note: str, *names: str) -> Example:
    return Example(Written(function, 6, *names), (torch.randn(2, 6, 4, 3),), note)


def examples() -> list[Example]:
    """Where it matches."""
    return [
        _vectors(_layer, "", "weight", "bias"),
        _vectors(_var_mean, "torch.var_mean", "weight", "bias"),
        _maps(_over_channels, "over the channels of an image", "weight", "bias"),
        _vectors(_rms, "no mean is taken off", "weight"),
        _maps(_rms_over_channels, "over the channels of an image, no mean is taken off", "weight"),
        _vectors(_llama, "in float32, weighted in the model's type, as in Llama", "weight"),
        _vectors(_t5, "its spread in float32, as in T5", "weight"),
        _vectors(_gemma, "in float32, one added to the weight, as in Gemma", "weight"),
    ]


def near_misses() -> list[Example]:
    """Where it does not."""
    return [
        _vectors(_outside, "what is added to the deviation, and not to the variance", "weight", "bias"),
        _vectors(_unbiased, "a variance of N − 1"),
        _vectors(_not_centred, "divided by the deviation from a mean that it has", "weight"),
        _maps(_of_a_batch, "over the batch, too"),
        Example(Written(_without_axis, 8), (torch.randn(8, 8),), "an axis that is lost"),
        _vectors(_read_twice, "a deviation that is used elsewhere"),
        _vectors(_third_power, "another power"),
    ]
