"""Error messages about inputs that a model does not accept."""

import difflib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.errors import InputError
from embedl_deploy.validation.quoting import quoted


def require_no_arrays(args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Refuse NumPy arrays, of which torch says only that they are not tensors.

    Raises:
        InputError: There are some.
    """
    given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for place, value in given:
        found = next((leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, np.ndarray)), None)
        if found is None:
            continue
        what = f"input {place!r}" if isinstance(place, str) else f"input {place + 1} of {len(args)}"
        holds = "is" if found is value else "holds"
        raise InputError(
            f"{what} {holds} a NumPy array, {found.dtype}{list(found.shape)}; expected a tensor. Convert it with "
            "torch.from_numpy."
        )


def wrong_names(
    names: Sequence[str], given: str, count: int, missing: Sequence[str], unknown: Sequence[str], twice: Sequence[str]
) -> str:
    """That inputs have other names or are more or fewer than a model's.

    Args:
        names: Of the model's inputs, in order.
        given: What was given, in words.
        count: How many were given by position.
        missing: Which the model takes and nobody gave.
        unknown: Names that were given and are none of the model's.
        twice: Those that were given by position and by name.
    """
    faults, cures = [], []
    if missing:
        faults.append(f"missing: {', '.join(missing)}")
    if unknown:
        faults.append(f"unknown: {', '.join(unknown)}")
    if twice:
        faults.append(f"given twice: {', '.join(twice)}")
        cures.append(f"Give {', '.join(twice)} once")
    if count > len(names):
        faults.append(f"{count} by position, which is {count - len(names)} too many")
        cures.append(f"Omit everything after the first {len(names)}" if names else "Leave them out")
    cures += _about_unknown(missing, unknown)
    if missing and not unknown:
        cures.append(f"Give {', '.join(missing)} as well")
    told = "; ".join(faults)
    return f"The model takes the inputs ({', '.join(names)}) but was given {given}; {told}. {'. '.join(cures)}."


def _about_unknown(missing: Collection[str], unknown: Sequence[str]) -> list[str]:
    """Names that were misspelled are given another; what is beyond the model's inputs is left out."""
    if not unknown:
        return []
    if not missing:
        return [f"Leave out {', '.join(unknown)}"]
    near = {name: difflib.get_close_matches(name, missing, n=1) for name in unknown}
    if all(near.values()):
        return [f"Write {found[0]} for {name}" for name, found in near.items()]
    return [f"Use the model's own names, {', '.join(missing)} in place of {', '.join(unknown)}"]


def described(value: Any) -> str:
    """An input for messages: shape, dtype and device of a tensor, also of those in containers."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)} on {value.device}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {described(part)}' for key, part in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(described, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(described, value))}{',' if len(value) == 1 else ''})"
    return quoted(value) if isinstance(value, np.ndarray) else repr(value)


def layer_in_words(node: fx.Node, model: nn.Module) -> str:
    """The layer or the operation that a node stands for, as the model's author knows it."""
    if node.op == "call_module":
        return f"{str(node.target)!r} ({type(model.get_submodule(str(node.target))).__name__})"
    return f"{node.name!r} ({getattr(node.target, '__name__', node.target)})"


def what_to_pass(model: nn.Module, *inputs: Any) -> str:
    """What to do about inputs that a layer refuses, in a sentence."""
    weights = [tensor for tensor in model.parameters() if tensor.is_floating_point()]
    given = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    general = "Pass inputs with the shapes and types that the model expects, on its device."
    if not weights:
        return general
    dtypes = {tensor.dtype for tensor in weights}
    kind = str(weights[0].dtype).removeprefix("torch.")
    like = f"The model's weights are {kind} on {weights[0].device}"
    if any(tensor.is_floating_point() and tensor.dtype not in dtypes for tensor in given):
        return f"{like}: convert the inputs, x.to(torch.{kind}), or the model, model.to(x.dtype)."
    if any(tensor.device != weights[0].device for tensor in given):
        return f"{like}: move the inputs there, x.to({str(weights[0].device)!r}), or the model, model.to(x.device)."
    if any(not tensor.is_floating_point() for tensor in given):
        return f"{general} {like}: convert integers that are not indices, scaled as in training."
    return general
