"""What the tests of the sensAI stub share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from embedl_deploy import TransformationResult, transform

#: Fusions call the very modules that they replace; what differs is at most the order of float additions.
TOLERANCE = 1e-6


@pytest.fixture
def fuse() -> Callable[..., TransformationResult]:
    """Transform for the backend; further arguments are example inputs."""

    def run(model: nn.Module, *args: torch.Tensor) -> TransformationResult:
        return transform(model, args or None, backend="sensai")

    return run


@pytest.fixture
def assert_agrees(fuse: Callable[..., TransformationResult]) -> Callable[..., None]:
    """Outputs in eval and in train mode, and running statistics after a step, are those of the user's model."""

    def run(model: nn.Module, *args: torch.Tensor, expect: int = 1, double: bool = True) -> None:
        for training in (False, True):
            model.train(training)
            result = fuse(model, *args)
            assert result.report["applied_count"] >= expect
            assert result.model.training is training
            torch.manual_seed(1)
            wanted = model(*args)
            torch.manual_seed(1)
            got = result.model(*args)
            torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE * float(wanted.detach().abs().max()))
            torch.testing.assert_close(sorted_statistics(result.model), sorted_statistics(model))
        if double:
            model.eval().double()
            args = tuple(value.double() for value in args)
            assert fuse(model, *args).verify(*args).max_rel <= 1e-14

    return run


def sorted_statistics(model: nn.Module) -> list[torch.Tensor]:
    """Running statistics of all batch norms, in an order that does not depend on their place in the model."""
    found = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None]
    stacked = [torch.stack([m.running_mean, m.running_var]) for m in found]
    return sorted(stacked, key=lambda value: (value.numel(), float(value.sum())))


@pytest.fixture
def reasons(fuse: Callable[..., TransformationResult]) -> Callable[..., list[str]]:
    """Why a pattern declines, for every place at which it does."""

    def run(model: nn.Module, pattern: str, *args: torch.Tensor) -> list[str]:
        report = fuse(model, *args).report
        return [refusal.reason for refusal in report.declined if refusal.pattern_name == pattern]

    return run


@pytest.fixture
def kinds() -> Callable[[Any], list[str]]:
    """Class names of the modules that a graph calls, functions by name, in order."""

    def run(result: TransformationResult) -> list[str]:
        model = result.model
        return [
            type(model.get_submodule(str(node.target))).__name__
            if node.op == "call_module"
            else str(getattr(node.target, "__name__", node.target))
            for node in model.graph.nodes
            if node.op.startswith("call_")
        ]

    return run
