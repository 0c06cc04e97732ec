"""A model of the zoo: a name, and how it is made with inputs for it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

#: The part of a channel's mean that batch normalization takes off.
_TAKEN_OFF = 0.3


@dataclass(frozen=True)
class Made:
    """A model, in evaluation mode, with random weights, and example inputs."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Member:
    """One model of a family.

    Attributes:
        name: Unique within the family.
        make: Makes it; called in a process of its own, at a fixed seed.
    """

    name: str
    make: Callable[[], Made]


def moved(made: Made, device: str) -> Made:
    """The model and every tensor among its inputs on a device."""
    args, kwargs = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), (made.args, made.kwargs))
    return Made(made.model.to(device), args, kwargs)


def perturb_constants(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter and statistic that holds one value throughout some variation, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point() or tensor.numel() < 2 or not bool((tensor == tensor.flatten()[0]).all()):
                continue
            noise = torch.rand(tensor.shape, generator=generator).to(tensor) - 0.5
            if name.endswith("running_var") or float(tensor.flatten()[0]) == 1:
                tensor.add_(noise)  # 0.5 … 1.5: a variance, or the gain of a normalization
            else:
                tensor.add_(0.2 * noise)


def settle_statistics(made: Made) -> None:
    """Set the statistics of every batch normalization to what reaches it, as training does, in place.

    Statistics that have nothing to do with the activations let these grow from layer to layer, until float16 cannot
    hold them, or fade until the output no longer depends on the input. All channels of a layer get one variance: with
    random weights some carry nearly nothing, and would be noise made large. Of the mean a part is taken off: with all
    of it, a deep network of random weights is chaotic, and rounding in its first layers is all of its output (Yang et
    al. 2019, "A Mean Field Theory of Batch Normalization"); with none of it, all inputs have nearly one output.
    """

    def settle(norm: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        if norm.running_mean is None or norm.running_var is None or args[0].numel() < 2 * norm.num_features:
            return
        columns = args[0].transpose(0, 1).flatten(1)
        norm.running_mean.copy_(_TAKEN_OFF * columns.mean(1))
        norm.running_var.copy_((columns - norm.running_mean[:, None]).square().mean())

    norms = [module for module in made.model.modules() if isinstance(module, _BatchNorm)]
    handles = [norm.register_forward_pre_hook(settle) for norm in norms]
    try:
        with torch.no_grad():
            made.model(*made.args, **made.kwargs)
    finally:
        for handle in handles:
            handle.remove()
