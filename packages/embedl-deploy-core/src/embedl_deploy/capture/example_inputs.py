"""Normalizes example inputs."""

from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from embedl_deploy.containers.known import know_containers
from embedl_deploy.errors import InputError


def normalize_args(args: Any, kwargs: Any) -> tuple[tuple[Any, ...] | None, dict[str, Any]]:
    """Example inputs as a tuple and a dictionary; a single tensor stands for a tuple of one.

    A tensor that is given more than once is copied: ``torch.export`` takes inputs that are one for one input. One that
    was computed with gradients, as caches are, has them no more.

    Raises:
        InputError: They are something else.
    """
    know_containers()
    if kwargs is not None and not isinstance(kwargs, dict):
        raise InputError(f"kwargs is {kwargs!r}; expected a dictionary from input names to values.")
    if isinstance(args, torch.Tensor):
        args = (args,)
    if args is not None and not isinstance(args, (tuple, list)):
        raise InputError(
            f"args is a {type(args).__name__}; expected a tuple of example inputs, args=(x,), or one tensor. "
            + ("Convert it with torch.from_numpy." if isinstance(args, np.ndarray) else "Named inputs go into kwargs.")
        )
    given: tuple[Any, dict[str, Any]] = (args if args is None else tuple(args), kwargs or {})
    positional, named = _each_tensor_once(given)
    return (() if positional is None and kwargs is not None else positional), named


def _each_tensor_once(inputs: Any) -> Any:
    seen: set[int] = set()

    def own(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in seen:
            return tensor.detach().clone().requires_grad_(tensor.requires_grad)
        seen.add(id(tensor))
        return tensor if tensor.is_leaf else tensor.detach().requires_grad_()

    return pytree.tree_map_only(torch.Tensor, own, inputs)
