"""Variations of an example: other settings of its layers, other activations, fewer layers, another batch or type.

An author writes down the examples that come to mind. What a pattern takes beside them, by its tree and its predicates,
is found here by changing one layer at a time, and each such change together with each change of the structure.
"""

import copy
import functools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.exclusive import random_numbers_kept
from embedl_deploy.patterns import Example

#: Changes a model in place; raises, or leaves a model that does not run, where it does not fit.
Change = Callable[[nn.Module], None]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "LeakyReLU": lambda: nn.LeakyReLU(0.1),
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}
#: Settings of a convolution for which hardware is likely to have kernels of their own.
_OF_KERNELS = frozenset({"groups", "stride", "dilation"})
#: Settings that a module reads when it is called, by class: name and another value.
_READ_WHEN_CALLED: dict[type[nn.Module], tuple[tuple[str, Any], ...]] = {
    nn.MaxPool2d: (("stride", 1), ("padding", 1), ("ceil_mode", True)),
    nn.AvgPool2d: (("stride", 1), ("padding", 1), ("ceil_mode", True), ("count_include_pad", False)),
    nn.BatchNorm1d: (("eps", 0.1),),
    nn.BatchNorm2d: (("eps", 0.1),),
    nn.BatchNorm3d: (("eps", 0.1),),
    nn.LayerNorm: (("eps", 0.1),),
    nn.ReLU: (("inplace", True),),
    nn.ReLU6: (("inplace", True),),
}


@dataclass(frozen=True)
class Variation:
    """One change of a model.

    Attributes:
        label: What is different, such as ``"0: groups=4"``.
        change: Makes it so.
        is_kernel: Whether hardware is likely to have another kernel for it, so that it is tried with every structure.
    """

    label: str
    change: Change
    is_kernel: bool = False


def settings_of(model: nn.Module, paths: Collection[str]) -> Iterator[Variation]:
    """Other settings of each layer, one at a time.

    Args:
        model: Not modified.
        paths: The layers that are varied.
    """
    for path, module in model.named_modules():
        if path not in paths:
            continue
        if type(module) in _CONVOLUTIONS:
            for changes in _of_convolution(module):
                label = ", ".join(f"{name}={value!r}" for name, value in changes.items())
                change = _replacing(path, _rebuilding(module, changes))
                yield Variation(f"{path}: {label}", change, bool(_OF_KERNELS.intersection(changes)))
        for name, value in _READ_WHEN_CALLED.get(type(module), ()):
            if getattr(module, name) != value:
                yield Variation(f"{path}: {name}={value!r}", _setting(path, name, value))
        if type(module) is nn.Linear:
            linear = functools.partial(nn.Linear, module.in_features, module.out_features, bias=module.bias is None)
            yield Variation(f"{path}: bias={module.bias is None}", _replacing(path, linear))
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) and module.affine:
            norm: Any = type(module)
            yield Variation(
                f"{path}: affine=False", _replacing(path, functools.partial(norm, module.num_features, affine=False))
            )


def structures_of(model: nn.Module, paths: Collection[str]) -> Iterator[Variation]:
    """Other activations, and layers of an ``nn.Sequential`` left out, one at a time; arguments as above."""
    kinds = {type(make()): name for name, make in _ACTIVATIONS.items()}
    for path, module in model.named_modules():
        if type(module) in kinds and path in paths:
            for name, make in _ACTIVATIONS.items():
                if name != kinds[type(module)]:
                    yield Variation(f"{path}: {name}", _replacing(path, make))
        if type(module) is nn.Sequential and len(module) > 1:
            for name, child in module.named_children():
                if f"{path}.{name}".removeprefix(".") not in paths:
                    continue
                yield Variation(f"without {type(child).__name__}", _dropping(path, name))


def _of_convolution(module: Any) -> Iterator[dict[str, Any]]:
    channels, out = module.in_channels, module.out_channels
    if channels > 1 and out % channels == 0 and module.groups != channels:
        yield {"groups": channels}
    if channels % 2 == 0 and out % 2 == 0 and channels > 2 and module.groups != 2:
        yield {"groups": 2}
    if module.groups != 1:
        yield {"groups": 1}
    yield {"stride": 1 if max(module.stride) > 1 else 2}
    yield {"dilation": 2 if max(module.dilation) == 1 else 1}
    yield {"bias": module.bias is None}
    size = module.kernel_size[0]
    wide = tuple(each // 2 for each in module.kernel_size)
    if size > 1:
        yield {"padding": 0 if module.padding not in (0, (0,) * len(wide)) else wide}
    if not module.transposed:
        yield {"padding": "same", "stride": 1}
        if size > 1:
            yield {"padding": wide, "padding_mode": "circular"}


def _rebuilding(module: Any, changes: dict[str, Any]) -> Callable[[], nn.Module]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    given = {name: getattr(module, name) for name in names} | {"bias": module.bias is not None}
    if module.transposed:
        given["output_padding"] = module.output_padding
    return lambda: type(module)(**{**given, **changes})


def _replacing(path: str, make: Callable[[], nn.Module]) -> Change:
    return lambda model: model.set_submodule(path, make())


def _setting(path: str, name: str, value: Any) -> Change:
    return lambda model: setattr(model.get_submodule(path), name, value)


def _dropping(path: str, name: str) -> Change:
    return lambda model: model.get_submodule(path).__delattr__(name)


def varied(example: Example, *variations: Variation) -> Example | None:
    """An example with changes made; ``None`` if they do not fit, or the model does not run with them."""
    model = copy.deepcopy(example.model)
    with random_numbers_kept(), torch.no_grad():
        torch.manual_seed(0)
        try:
            for variation in variations:
                variation.change(model)
            model.eval()(*pytree.tree_map_only(torch.Tensor, torch.clone, example.args))
        except Exception:  # noqa: BLE001 - whatever torch's layers raise for settings that do not fit together
            return None
    return Example(model, example.args, ", ".join(variation.label for variation in variations))


def surroundings_of(example: Example) -> Iterator[Example]:
    """The same model with a batch of one, with a larger one, and in float64."""
    first = next(value for value in example.args if isinstance(value, torch.Tensor))
    size = first.shape[0]

    def batch(count: int, value: torch.Tensor) -> torch.Tensor:
        if value.dim() == 0 or value.shape[0] != size:
            return value
        return torch.cat([value, value.flip(0)])[:count] if count > size else value[:count].clone()

    for count in (1, size + 1):
        args = tuple(batch(count, value) if isinstance(value, torch.Tensor) else value for value in example.args)
        yield Example(example.model, args, f"a batch of {count}")
    wide = pytree.tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, example.args)
    yield Example(copy.deepcopy(example.model).double(), wide, "in float64")
