"""The ways in which one operation is written in PyTorch code."""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

Unary = Callable[[torch.Tensor], torch.Tensor]
Binary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Activation:
    """An activation as code writes it.

    Attributes:
        text: How it is written.
        make: Gives a module or a function.
        module_class: The module that it equals.
        settings: Attributes that this module has.
    """

    text: str
    make: Callable[[], Unary]
    module_class: type[nn.Module]
    settings: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        return self.text


ACTIVATIONS = (
    Activation("nn.ReLU()", lambda: nn.ReLU(), nn.ReLU),
    Activation("nn.ReLU(inplace=True)", lambda: nn.ReLU(inplace=True), nn.ReLU, (("inplace", True),)),
    Activation("F.relu(x)", lambda: F.relu, nn.ReLU),
    Activation("F.relu(x, inplace=True)", lambda: lambda x: F.relu(x, inplace=True), nn.ReLU, (("inplace", True),)),
    Activation("F.relu(x, True)", lambda: lambda x: F.relu(x, True), nn.ReLU, (("inplace", True),)),
    Activation("F.relu_(x)", lambda: F.relu_, nn.ReLU, (("inplace", True),)),
    Activation("torch.relu(x)", lambda: torch.relu, nn.ReLU),
    Activation("torch.relu_(x)", lambda: torch.relu_, nn.ReLU, (("inplace", True),)),
    Activation("x.relu()", lambda: lambda x: x.relu(), nn.ReLU, (("inplace", False),)),
    Activation("x.relu_()", lambda: lambda x: x.relu_(), nn.ReLU, (("inplace", True),)),
    Activation("nn.ReLU6()", lambda: nn.ReLU6(), nn.ReLU6),
    Activation("F.relu6(x)", lambda: F.relu6, nn.ReLU6),
    Activation("F.hardtanh(x, 0.0, 6.0)", lambda: lambda x: F.hardtanh(x, 0.0, 6.0), nn.ReLU6),
    Activation("x.clamp(min=0)", lambda: lambda x: x.clamp(min=0), nn.ReLU),
    Activation("x.clamp_(0, 6)", lambda: lambda x: x.clamp_(0, 6), nn.ReLU6, (("inplace", True),)),
    Activation("nn.LeakyReLU(0.2)", lambda: nn.LeakyReLU(0.2), nn.LeakyReLU, (("negative_slope", 0.2),)),
    Activation("F.leaky_relu(x)", lambda: F.leaky_relu, nn.LeakyReLU, (("negative_slope", 0.01),)),
    Activation(
        "F.leaky_relu(x, 0.3, inplace=True)",
        lambda: lambda x: F.leaky_relu(x, 0.3, inplace=True),
        nn.LeakyReLU,
        (("negative_slope", 0.3), ("inplace", True)),
    ),
    Activation("nn.ELU(0.5)", lambda: nn.ELU(0.5), nn.ELU, (("alpha", 0.5),)),
    Activation("F.elu(x, alpha=0.7)", lambda: lambda x: F.elu(x, alpha=0.7), nn.ELU, (("alpha", 0.7),)),
    Activation("nn.GELU()", lambda: nn.GELU(), nn.GELU, (("approximate", "none"),)),
    Activation("F.gelu(x)", lambda: F.gelu, nn.GELU, (("approximate", "none"),)),
    Activation(
        'F.gelu(x, approximate="tanh")',
        lambda: lambda x: F.gelu(x, approximate="tanh"),
        nn.GELU,
        (("approximate", "tanh"),),
    ),
    Activation("nn.SiLU()", lambda: nn.SiLU(), nn.SiLU),
    Activation("F.silu(x, inplace=True)", lambda: lambda x: F.silu(x, inplace=True), nn.SiLU, (("inplace", True),)),
    Activation("nn.Hardswish()", lambda: nn.Hardswish(), nn.Hardswish),
    Activation("F.hardswish(x)", lambda: F.hardswish, nn.Hardswish),
    Activation("nn.Hardsigmoid()", lambda: nn.Hardsigmoid(), nn.Hardsigmoid),
    Activation("F.hardsigmoid(x)", lambda: F.hardsigmoid, nn.Hardsigmoid),
)

#: Element-wise functions that no epilogue computes, or that equal no activation for every input.
NOT_ACTIVATIONS = (
    Activation("nn.Sigmoid()", lambda: nn.Sigmoid(), nn.Sigmoid),
    Activation("F.mish(x)", lambda: F.mish, nn.Mish),
    Activation("F.hardtanh(x)", lambda: F.hardtanh, nn.Hardtanh),
    Activation("F.softplus(x)", lambda: F.softplus, nn.Softplus),
    Activation("nn.PReLU()", lambda: nn.PReLU(), nn.PReLU),
    Activation("x.clamp(min=0.5)", lambda: lambda x: x.clamp(min=0.5), nn.Hardtanh),
    Activation("x.clamp(max=6)", lambda: lambda x: x.clamp(max=6), nn.Hardtanh),
)


@dataclass(frozen=True)
class Sum:
    """A sum as code writes it."""

    text: str
    compute: Binary

    def __str__(self) -> str:
        return self.text


def _augmented(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a += b
    return a


SUMS = (
    Sum("a + b", lambda a, b: a + b),
    Sum("operator.add(a, b)", operator.add),
    Sum("torch.add(a, b)", torch.add),
    Sum("torch.add(a, b, alpha=1)", lambda a, b: torch.add(a, b, alpha=1)),
    Sum("torch.add(input=a, other=b)", lambda a, b: torch.add(input=a, other=b)),
    Sum("a.add(b)", lambda a, b: a.add(b)),
    Sum("a += b", _augmented),
    Sum("a.add_(b)", lambda a, b: a.add_(b)),
)

#: What looks like a sum of two tensors but is none.
NOT_SUMS = (
    Sum("a - b", lambda a, b: a - b),
    Sum("a * b", lambda a, b: a * b),
    Sum("torch.add(a, b, alpha=2)", lambda a, b: torch.add(a, b, alpha=2)),
    Sum("a.add(b, alpha=2)", lambda a, b: a.add(b, alpha=2)),
    Sum("a + 1", lambda a, b: a + 1),
)
