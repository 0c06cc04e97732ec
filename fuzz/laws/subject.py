"""What laws are tried on: a network's model, its inputs, and how exact it can be."""

import math
import warnings
from collections.abc import Callable
from functools import cached_property
from random import Random
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy import TransformationResult, transform
from fuzz.laws.law import Broken


class Subject:
    """A network under trial.

    Attributes:
        seed: The network's.
        make: Builds the model, the same each time, in evaluation mode.
        inputs: Positional and keyword inputs, by a seed.
        tolerance: Of differences, relative to the largest value of a tensor.
        backend: The backend that it is transformed for.
    """

    def __init__(
        self,
        seed: int,
        make: Callable[[], nn.Module],
        inputs: Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]],
        *,
        halves: bool = False,
        double: bool = False,
    ) -> None:
        self.seed, self.make, self.inputs = seed, make, inputs
        self.tolerance = 3e-2 if halves else 1e-9 if double else 1e-4
        self.nudge = 1e-3 if halves else 1e-15 if double else 1e-6
        drawn = Random(f"backend {seed}").random()
        self.backend = "sensai" if drawn < 0.1 else "onnxruntime" if drawn < 0.4 else "tensorrt"

    def rng(self, name: str) -> Random:
        """What a law draws from."""
        return Random(f"{name} {self.seed}")

    def transform(self, model: nn.Module | None = None, **options: Any) -> TransformationResult:
        """Transform a model, by default a new one, with the first inputs as examples."""
        args, kwargs = self.inputs(0)
        options = {"backend": self.backend, **options}
        return transform(model if model is not None else self.make(), args, kwargs=kwargs, **options)

    @cached_property
    def result(self) -> TransformationResult:
        """The model in evaluation mode, transformed; not to be changed."""
        return self.transform()

    def run(self, model: nn.Module, seed: int = 1, *, keep: bool = False) -> Any:
        """Outputs on inputs of a seed, with its random state; buffers are put back unless they are to be kept."""
        args, kwargs = self.inputs(seed)
        torch.manual_seed(seed)
        parts = [] if keep else [(part, dict(part._buffers)) for part in model.modules()]
        before = [(b, b.clone()) for _, buffers in parts for b in buffers.values() if b is not None]
        with torch.no_grad():
            outputs = model(*args, **kwargs)
            for buffer, value in before:
                buffer.copy_(value)
        for part, buffers in parts:
            part._buffers.update(buffers)
        return outputs

    @cached_property
    def outputs(self) -> Any:
        """What the user's model gives for inputs 1, in evaluation mode."""
        return self.run(self.make())

    @cached_property
    def own_warnings(self) -> set[str]:
        """What the model itself warns of."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.run(self.make())
            self.run(self.make().train())
        return {str(warning.message) for warning in caught}

    def agree(self, got: Any, wanted: Any, what: str, *, train: bool = False) -> None:
        """Outputs have the same structure, types and shapes, and values as close as the network allows.

        Raises:
            Broken: They do not.
        """
        same_structure(got, wanted, what)
        apart = distance(got, wanted)
        if apart <= self.tolerance:
            return
        # A network may be ill-conditioned: then its own outputs move as far when its inputs move a little.
        moved = self.run(self.nudged(train))
        still = self.run(self.make().train(train))
        if apart > max(self.tolerance, 20 * distance(moved, still)):
            raise Broken(f"{what}: {apart:.3g} of the largest value apart, where {self.tolerance:g} is allowed")

    def nudged(self, train: bool) -> nn.Module:
        """The model with parameters that are a little off, as rounding makes them."""
        model = self.make().train(train)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.mul_(1 + self.nudge * noise)
        return model


def leaves(value: Any) -> list[torch.Tensor]:
    """All tensors in a structure."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def same_structure(got: Any, wanted: Any, what: str) -> None:
    """Structures, dtypes and shapes are equal.

    Raises:
        Broken: They are not.
    """
    got, wanted = _plain(got), _plain(wanted)
    a, b = pytree.tree_structure(got), pytree.tree_structure(wanted)
    if a != b:
        raise Broken(f"{what}: the output has another structure: {a} instead of {b}")
    for x, y in zip(pytree.tree_leaves(got), pytree.tree_leaves(wanted), strict=True):
        if not isinstance(y, torch.Tensor):
            if x != y:
                raise Broken(f"{what}: {x!r} instead of {y!r}")
        elif x.dtype != y.dtype or x.shape != y.shape:
            raise Broken(f"{what}: {x.dtype} {tuple(x.shape)} instead of {y.dtype} {tuple(y.shape)}")


def _plain(value: Any) -> Any:
    """A structure whose dictionaries are plain: a graph of torch.fx returns those, in the same order."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_plain(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def distance(got: Any, wanted: Any) -> float:
    """The largest difference, relative to the largest value of each tensor; infinite where one is not finite."""
    worst = 0.0
    for x, y in zip(leaves(got), leaves(wanted), strict=True):
        if not y.numel():
            continue
        x, y = x.double(), y.double()
        apart = float((x - y).abs().max() / y.abs().max().clamp(min=1e-3))
        worst = max(worst, apart if math.isfinite(apart) else math.inf)
    return worst


def signal_to_noise(got: Any, wanted: Any) -> float:
    """In decibels, over all tensors."""
    pairs = [(x.double(), y.double()) for x, y in zip(leaves(got), leaves(wanted), strict=True)]
    noise = sum(float((x - y).square().sum()) for x, y in pairs)
    signal = sum(float(y.square().sum()) for _, y in pairs)
    if not math.isfinite(noise):
        return -math.inf
    return 10 * math.log10(max(signal, 1e-12) / noise) if noise else math.inf
