"""Copies gradient hooks and attributes of parameters, which ``deepcopy`` drops.

``weight.register_hook(lambda g: g * mask)`` keeps pruned weights pruned. A copy has the same hooks, and what takes the
place of a tensor in the same shape has them, too. A tensor of another shape has not: what was made for the one, such as
a mask, would not fit.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

_TABLES = ("_backward_hooks", "_post_accumulate_grad_hooks")


def has_gradient_hooks(tensor: torch.Tensor) -> bool:
    """Whether a leaf tensor has hooks that run in ``backward``."""
    return bool(tensor.is_leaf) and any(getattr(tensor, table) for table in _TABLES)


def take_gradient_hooks(new: torch.Tensor, old: torch.Tensor) -> None:
    """Give a leaf tensor the hooks of the one whose place it takes, if it has its shape."""
    if new is not old and new.shape == old.shape and has_gradient_hooks(old):
        _give(new, old)


def copy_what_hangs_on_tensors(model: nn.Module, copies: dict[int, Any]) -> None:
    """Copy hooks and attributes of a model's tensors.

    Args:
        model: The model that was copied.
        copies: The memory of ``deepcopy``: copies by the ids of what they are of. What hooks refer to that is a part of
            the model is the copy's part in it then.
    """
    for module in model.modules():
        for table in (module._parameters, module._buffers, vars(module)):
            for tensor in table.values():
                copied = copies.get(id(tensor))
                if not isinstance(tensor, torch.Tensor) or not isinstance(copied, torch.Tensor):
                    continue
                if isinstance(tensor, nn.Parameter) and not vars(copied):
                    vars(copied).update(copy.deepcopy(vars(tensor), copies))
                if has_gradient_hooks(tensor) and not has_gradient_hooks(copied):
                    _give(copied, tensor, partial(copy.deepcopy, memo=copies))


def _give(new: torch.Tensor, old: torch.Tensor, copied: Callable[[Any], Any] = lambda hook: hook) -> None:
    for table in _TABLES:
        hooks = getattr(old, table)
        if hooks:
            setattr(new, table, OrderedDict((key, copied(hook)) for key, hook in hooks.items()))
