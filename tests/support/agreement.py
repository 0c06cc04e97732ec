"""Whether a rewritten model is the model that it was: outputs, one training step, and a second run."""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy import TransformationResult, transform
from embedl_deploy.modules import FusedModule
from embedl_deploy.patterns import Pattern

#: Relative to the larger of 1 and the value, in float32: room for a few reordered additions, no more.
TOLERANCE = 1e-5


def fused_counts(model: nn.Module) -> dict[str, int]:
    """How many fused modules of each type a model holds."""
    return dict(Counter(type(module).__name__ for module in model.modules() if isinstance(module, FusedModule)))


def applied(result: TransformationResult) -> list[tuple[str, ...]]:
    """The rewrites that were made: the pattern's name, then the names of the matched nodes."""
    return [(entry["pattern"], *entry["nodes"]) for entry in result.report["applied"]]


def reasons(source: Any) -> list[str]:
    """The refusals of a plan, or in a result's report, as text."""
    declined = source.report.declined if isinstance(source, TransformationResult) else source.declined
    return [str(refusal) for refusal in declined]


def check_rewrite(
    model: nn.Module,
    inputs: Sequence[torch.Tensor],
    patterns: Sequence[Pattern],
    *,
    shapes: bool = True,
    train: bool = True,
    tolerance: float = TOLERANCE,
) -> TransformationResult:
    """Rewrite ``model`` and check everything that holds of every rewrite.

    Outputs agree in evaluation mode, and in training mode together with gradients and running statistics; the user's
    model is unchanged; a second run over the result finds nothing to do.

    Args:
        model: The user's model, in evaluation mode.
        inputs: What it is called with.
        patterns: The patterns to apply, all of them, without a backend.
        shapes: Whether example inputs are given to ``transform``.
        train: Whether training mode is checked; leave it out where masks are drawn.
        tolerance: See :data:`TOLERANCE`.

    Returns:
        The result in evaluation mode.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    args = tuple(inputs) if shapes else None
    result = transform(model, args, patterns=patterns, strict=True)
    assert_close(run(result.model, inputs), run(model, inputs), tolerance)
    if train:
        check_training_step(model, inputs, patterns, args, tolerance)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not model.training
    second = transform(result.model, args, patterns=patterns, strict=True)
    assert second.report["applied_count"] == 0, applied(second)
    return result


def run(model: nn.Module, inputs: Sequence[torch.Tensor]) -> Any:
    """Call a model on copies of the inputs, since it may overwrite them."""
    return model(*(x.clone() for x in inputs))


def assert_close(got: Any, wanted: Any, tolerance: float = TOLERANCE) -> None:
    """Structures, dtypes and shapes are equal, and values close."""
    got_leaves, got_structure = pytree.tree_flatten(got)
    wanted_leaves, wanted_structure = pytree.tree_flatten(wanted)
    assert got_structure == wanted_structure
    for a, b in zip(got_leaves, wanted_leaves, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def check_training_step(
    model: nn.Module,
    inputs: Sequence[torch.Tensor],
    patterns: Sequence[Pattern],
    args: tuple[torch.Tensor, ...] | None,
    tolerance: float,
) -> None:
    """Outputs, gradients and running statistics of one forward and backward pass in training mode are close."""
    trained = copy.deepcopy(model).train()
    rewritten = transform(trained, args, patterns=patterns, strict=True).model
    assert rewritten.training
    parameters = _by_value(trained), _by_value(rewritten)
    assert parameters[0].keys() == parameters[1].keys()
    assert len(list(trained.parameters())) == len(list(rewritten.parameters())), "a shared parameter came apart"
    norms = _norms_by_weight(trained), _norms_by_weight(rewritten)
    assert norms[0].keys() <= norms[1].keys()  # a functional batch norm has become a module
    outputs = []
    for one in (trained, rewritten):
        torch.manual_seed(0)
        outputs.append(run(one, inputs))
        leaves = [leaf for leaf in pytree.tree_leaves(outputs[-1]) if leaf.requires_grad]
        if leaves:
            sum(leaf.square().sum() for leaf in leaves).backward()
    assert_close(outputs[1], outputs[0], tolerance)
    for value, parameter in parameters[0].items():
        other = parameters[1][value]
        assert (parameter.grad is None) == (other.grad is None)
        if parameter.grad is not None:
            # Gradients are larger than outputs, and reordered more often.
            torch.testing.assert_close(
                other.grad.reshape(parameter.shape), parameter.grad, rtol=10 * tolerance, atol=100 * tolerance
            )
    for weight, norm in norms[0].items():
        assert_close(dict(norms[1][weight].named_buffers()), dict(norm.named_buffers()), tolerance)


def _key(tensor: torch.Tensor) -> tuple[float, ...]:
    return tuple(tensor.detach().flatten().tolist())


def _by_value(model: nn.Module) -> dict[tuple[float, ...], nn.Parameter]:
    """Parameters by what they hold: a rewrite may move and reshape them, but not change their values."""
    return {_key(parameter): parameter for parameter in model.parameters()}


def _norms_by_weight(model: nn.Module) -> dict[tuple[float, ...], nn.Module]:
    norms = (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    return {_key(module.weight): module for module in norms}
