"""Models with distinct weights, and comparisons of the outputs of two models."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.exclusive import random_numbers_kept
from embedl_deploy.testing.failures import ConformanceFailure
from embedl_deploy.verify import difference, output_tensors

_TensorT = TypeVar("_TensorT", bound=torch.Tensor)

#: Largest difference of outputs and running statistics, relative to the largest value: a few reordered additions.
TOLERANCE = 1e-5
#: The same for gradients, which sum over more terms.
GRADIENT_TOLERANCE = 1e-4

#: The values of a tensor, a key that identifies it in a rewritten model, whatever its shape is there.
Numbers = tuple[str, tuple[Any, ...]]


@torch.no_grad()
def with_distinct_weights(model: nn.Module, *, training: bool = False, seed: int = 0) -> nn.Module:
    """A copy of a model whose weights make mistakes visible.

    Constant parameters, such as those of a new batch norm, and running statistics get random values. Otherwise a
    rewrite that drops a batch norm would not change the outputs, and equal tensors could not be distinguished.

    Args:
        model: Not modified.
        training: The mode of the copy.
        seed: Seed of the random values.
    """
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * 0.1)
    for count, (name, buffer) in enumerate(model.named_buffers()):
        last = name.rpartition(".")[2]
        if last == "running_mean":
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.3)
        elif last == "running_var":
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
        elif last == "num_batches_tracked":
            buffer.fill_(count + 1)
    return model.train(training)


@torch.no_grad()
def with_other_numbers(model: nn.Module) -> nn.Module:
    """A copy of a model with other parameters and running statistics."""
    model = with_distinct_weights(model, seed=1)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.mul_(0.75).add_(0.05)
    return model


def run(model: nn.Module, args: tuple[Any, ...]) -> Any:
    """Call a model on copies of the inputs, since it may overwrite them, with random numbers from seed 0."""
    with random_numbers_kept():
        torch.manual_seed(0)
        return model(*pytree.tree_map_only(torch.Tensor, torch.clone, args))


def draws_random_numbers(model: nn.Module, args: tuple[Any, ...]) -> bool:
    """Whether calling a model draws random numbers, as dropout does in training mode."""
    model, copied = copy.deepcopy(model), pytree.tree_map_only(torch.Tensor, torch.clone, args)
    with random_numbers_kept(), torch.no_grad():
        before = torch.get_rng_state()
        model(*copied)
        return not torch.equal(before, torch.get_rng_state())


def require_same(wanted: Any, found: Any, what: str = "outputs", tolerance: float = TOLERANCE) -> None:
    """Raise unless two outputs have one structure, the same dtypes and shapes, and close values.

    Raises:
        ConformanceFailure: They have not.
    """
    structures = [pytree.tree_structure(output) for output in (wanted, found)]
    kinds = [[f"{t.dtype} {tuple(t.shape)}" for t in output_tensors(output)] for output in (wanted, found)]
    if structures[0] != structures[1] or kinds[0] != kinds[1]:
        raise ConformanceFailure(
            f"{what}: {', '.join(kinds[1])} in {structures[1]}", f"{', '.join(kinds[0])} in {structures[0]}"
        )
    for number, (a, b) in enumerate(zip(output_tensors(wanted), output_tensors(found), strict=True)):
        apart = difference(a, b)
        if not apart.max_rel <= tolerance:
            raise ConformanceFailure(f"{what}, tensor {number}: {apart}", f"at most {tolerance:g} of the largest value")


def numbers_of(tensor: torch.Tensor) -> Numbers:
    """A key that identifies a tensor by its values in memory order, so that a transposed matrix has the same key."""
    return str(tensor.dtype), tuple(in_memory_order(tensor.detach()).flatten().tolist())


def in_memory_order(tensor: torch.Tensor, parameter: torch.Tensor | None = None) -> torch.Tensor:
    """A tensor with its dimensions in the order of its strides, or of those of the parameter whose gradient it is."""
    strides = (tensor if parameter is None else parameter).stride()
    return tensor.permute(sorted(range(tensor.dim()), key=lambda dim: -strides[dim]))


def by_numbers(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[Numbers, tuple[str, torch.Tensor]]:
    """Names and tensors by their values. Tensors with equal values cannot be distinguished, and are left out."""
    found: dict[Numbers, list[tuple[str, torch.Tensor]]] = {}
    for name, tensor in tensors:
        found.setdefault(numbers_of(tensor), []).append((name, tensor))
    return {numbers: holders[0] for numbers, holders in found.items() if len(holders) == 1}


def pairs(
    original: nn.Module,
    rewritten: nn.Module,
    tensors_of: Callable[[nn.Module], Iterable[tuple[str, torch.Tensor]]],
) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
    """For each tensor of a model, by name, the tensor with the same values in the rewritten model, if there is one."""
    there = by_numbers(tensors_of(rewritten))
    return {
        name: (tensor, there[numbers][1] if numbers in there else None)
        for numbers, (name, tensor) in by_numbers(tensors_of(original)).items()
    }


def pieces_of(tensor: torch.Tensor, others: Iterable[_TensorT]) -> list[_TensorT]:
    """The ``others`` that are slices of a tensor along its first dimension; empty unless they cover the tensor."""
    if tensor.dim() == 0:
        return []
    places = {numbers_of(row): index for index, row in enumerate(tensor)}
    pieces, found = [], set()
    for other in others:
        if other.dim() == tensor.dim() and other.shape[1:] == tensor.shape[1:]:
            held = [places.get(numbers_of(row)) for row in other]
            if held and None not in held:
                pieces.append(other)
                found.update(held)
    return pieces if len(found) == len(tensor) else []
