"""Checks of the parameters and buffers of a rewritten model: the original ones, shared as before, and portable."""

import copy
from typing import Any

import torch
from torch import nn

from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.patterns import Example
from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply
from embedl_deploy.testing.subjects import PatternSubject, for_each_example
from embedl_deploy.testing.tensors import (
    numbers_of,
    pairs,
    pieces_of,
    require_same,
    run,
    with_distinct_weights,
    with_other_numbers,
)


class Twice(nn.Module):
    """Calls two modules, or one module two times, with the same input."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Both results."""
        return self.first(x), self.second(x)


class TwiceWithMany(Twice):
    """The same with several inputs, which come as a tuple: symbolic tracing takes no ``*args``."""

    def __init__(self, first: nn.Module, second: nn.Module, count: int) -> None:
        super().__init__(first, second)
        self.count = count

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Both results."""
        inputs = [x[index] for index in range(self.count)]
        return self.first(*inputs), self.second(*inputs)


@for_each_example
def keeps_parameters(subject: PatternSubject, example: Example) -> None:
    """Every parameter is in the result with the same numbers, and none was added that training would change.

    A parameter may be cut along its first dimension, as one is that holds the weights of several products.
    """
    model = with_distinct_weights(example.model)
    result = subject.rewrite(model, example).model
    known = {numbers_of(parameter) for parameter in model.parameters()}
    for name, (parameter, other) in pairs(model, result, nn.Module.named_parameters).items():
        holders = pieces_of(parameter, result.parameters()) if other is None else [other]
        if not holders:
            raise ConformanceFailure(
                f"no parameter of the result has the values of {name}", "the original parameter, nothing folded"
            )
        for holder in holders:
            known.add(numbers_of(holder))
            if holder.requires_grad != parameter.requires_grad:
                raise ConformanceFailure(
                    f"requires_grad of {name} is {holder.requires_grad}", f"{parameter.requires_grad}, as before"
                )
    for name, parameter in result.named_parameters():
        if parameter.requires_grad and numbers_of(parameter) not in known:
            raise ConformanceFailure(f"{name} is a new parameter, which training would change", "a buffer")


@for_each_example
def keeps_sharing(subject: PatternSubject, example: Example) -> None:
    """What is used twice stays one: a module that is called twice, and weights that two modules have in common."""
    if not any(True for _ in example.model.parameters()) and not any(True for _ in example.model.buffers()):
        raise DoesNotApply("its examples have no parameters and no buffers to share")
    model = with_distinct_weights(example.model)
    single = _count(model)
    constants = _count(subject.rewrite(model, example).model) - single  # a conversion may bring some of its own
    for second, what in ((model, "the model called twice"), (_tied_copy(model), "two models with the same weights")):
        if len(example.args) == 1:
            both: nn.Module = Twice(model, second)
            twice = example
        else:
            both = TwiceWithMany(model, second, len(example.args))
            twice = Example(both, (example.args,))
        found = _count(subject.rewrite(both.eval(), twice).model)
        if found > single + 2 * constants:
            raise ConformanceFailure(
                f"{what}: {found} tensors after the rewrite", f"{single}, shared as before, not copied"
            )


def _count(model: nn.Module) -> int:
    """How many parameters and buffers a model has, each shared one counted once."""
    return len({id(tensor) for tensor in (*model.parameters(), *model.buffers())})


def _tied_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules around the same tensors."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, dict(tensors))


@for_each_example
def can_be_copied(subject: PatternSubject, example: Example) -> None:
    """A deep copy of the result computes the same, with tensors of its own."""
    result = subject.rewrite(with_distinct_weights(example.model), example).model
    copied = deep_copy(result)
    shared = {id(t) for t in (*copied.parameters(), *copied.buffers())}
    names = [name for name, t in (*result.named_parameters(), *result.named_buffers()) if id(t) in shared]
    if names:
        raise ConformanceFailure(f"a deep copy of the result shares {', '.join(names)} with it", "tensors of its own")
    with torch.no_grad():
        require_same(run(result, example.args), run(copied, example.args), "outputs of a deep copy", 0.0)


@for_each_example
def state_can_be_loaded(subject: PatternSubject, example: Example) -> None:
    """A ``state_dict`` fits a model with other weights that is transformed again, which then computes the same."""
    result = subject.rewrite(with_distinct_weights(example.model), example).model
    state = result.state_dict()
    if not state:
        raise DoesNotApply("its examples have no state")
    other = subject.rewrite(with_other_numbers(example.model), example).model
    try:
        other.load_state_dict(state)
    except RuntimeError as error:
        raise ConformanceFailure(" ".join(str(error).split()), "a state_dict that fits") from error
    with torch.no_grad():
        require_same(run(result, example.args), run(other, example.args), "outputs with the loaded state", 0.0)
