"""Checks that a rewrite keeps the numbers: outputs, running statistics, gradients."""

from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.patterns import Example
from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply
from embedl_deploy.testing.subjects import PatternSubject, for_each_example
from embedl_deploy.testing.tensors import (
    GRADIENT_TOLERANCE,
    draws_random_numbers,
    in_memory_order,
    pairs,
    require_same,
    run,
    with_distinct_weights,
)
from embedl_deploy.verify import output_tensors

_RANDOM = "it draws random numbers in training mode (dropout)"


@for_each_example
def keeps_numbers_in_evaluation(subject: PatternSubject, example: Example) -> None:
    """The outputs of the rewritten model are those of the example, in evaluation mode."""
    model = with_distinct_weights(example.model)
    rewritten = subject.rewrite(model, example).model
    with torch.no_grad():
        require_same(run(model, example.args), run(rewritten, example.args))


@for_each_example
def keeps_numbers_in_training(subject: PatternSubject, example: Example) -> None:
    """So they are in training mode, and so are the running statistics afterwards."""
    model = with_distinct_weights(example.model, training=True)
    require_same_training(model, subject.rewrite(model, example).model, example.args)


def require_same_training(model: nn.Module, rewritten: nn.Module, args: tuple[Any, ...]) -> None:
    """Run both in training mode, and raise unless outputs and running statistics agree.

    Args:
        model: In training mode; its running statistics move on.
        rewritten: What was made of it.
        args: What both are called with.

    Raises:
        ConformanceFailure: They do not agree.
        DoesNotApply: The model draws random numbers, so that no two runs agree.
    """
    if draws_random_numbers(model, args):
        raise DoesNotApply(_RANDOM)
    if not rewritten.training:
        raise ConformanceFailure("the rewritten model is in evaluation mode", "training mode, as the model was")
    statistics = pairs(model, rewritten, nn.Module.named_buffers)
    before = {name: tensor.clone() for name, (tensor, _) in statistics.items()}
    require_same(run(model, args), run(rewritten, args))
    for name, (tensor, other) in statistics.items():
        if torch.equal(before[name], tensor):
            continue
        if other is None:
            raise ConformanceFailure(
                f"{name}, which training updates, is missing in the rewritten model", "the original batch norm in it"
            )
        require_same(tensor, other, f"{name} after one batch")


@for_each_example
def keeps_gradients(subject: PatternSubject, example: Example) -> None:
    """Gradients of parameters and inputs are those of the example."""
    model = with_distinct_weights(example.model, training=True)
    if draws_random_numbers(model, example.args):
        raise DoesNotApply(_RANDOM)
    rewritten = subject.rewrite(model, example).model
    parameters = pairs(model, rewritten, nn.Module.named_parameters)
    gradients = [_backward(one, example.args) for one in (model, rewritten)]
    for number, (a, b) in enumerate(zip(*gradients, strict=True)):
        _require_same_gradient(f"input {number}", a, b)
    for name, (parameter, other) in parameters.items():
        if other is not None:  # that none is missing is a check of its own
            wanted, found = _gradient(parameter), _gradient(other)
            _require_same_gradient(name, wanted, found)


def _gradient(parameter: torch.Tensor) -> torch.Tensor | None:
    return None if parameter.grad is None else in_memory_order(parameter.grad, parameter)


def _require_same_gradient(name: str, wanted: torch.Tensor | None, found: torch.Tensor | None) -> None:
    if wanted is None:
        return
    if found is None:
        raise ConformanceFailure(f"no gradient reaches {name}", "the gradient of the original")
    require_same(wanted, found.reshape(wanted.shape), f"gradient of {name}", GRADIENT_TOLERANCE)


def _backward(model: nn.Module, args: tuple[Any, ...]) -> list[torch.Tensor | None]:
    """Send a gradient back through a model; gives those of the floating-point inputs."""

    def leaf(value: torch.Tensor) -> torch.Tensor:
        value = value.detach().clone()
        return value.requires_grad_() if value.is_floating_point() else value

    inputs = pytree.tree_map_only(torch.Tensor, leaf, args)
    # What overwrites its input in place must not overwrite a leaf.
    given = pytree.tree_map_only(torch.Tensor, torch.clone, inputs)
    outputs = [output for output in output_tensors(model(*given)) if output.requires_grad]
    if outputs:
        weights = torch.Generator().manual_seed(0)
        loss = sum((output * torch.randn(output.shape, generator=weights).to(output)).sum() for output in outputs)
        assert isinstance(loss, torch.Tensor)  # the sum of at least one
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return [value.grad for value in output_tensors(inputs)]
