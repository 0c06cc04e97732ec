"""Records which tensors a model has and which parts share one, which a ``state_dict`` does not say.

Corrections change a tensor for one reader at a time: two layers with one weight have two weights afterwards, a
parametrized weight is a plain one, a layer norm without a weight has one. So a recipe notes both, and a model that is
built again is given the same.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from embedl_deploy.errors import QuantizationError
from embedl_deploy.graph.gradient_hooks import take_gradient_hooks
from embedl_deploy.modules import QuantStub, with_parameters
from embedl_deploy.quantize.grid.findings import Finding
from embedl_deploy.quantize.placing.stored_format import StoresFormat

#: In front of the name under which a shared tensor or module was told already.
_SAME = "= "
_REBUILD = "Rebuild from the model that the recipe was made from, transformed by the same patterns."


def tensors_of(model: nn.Module) -> dict[str, str]:
    """The shape of every tensor of a model's state, by name, without those of quantizers.

    A tensor that was told under another name is ``"= "`` and that name.
    """
    told: dict[Any, str] = {}
    found = {}
    for name, (_, _, tensor) in _owned(model).items():
        first = told.setdefault(_identity(tensor), name)
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        found[name] = shape if first == name else f"{_SAME}{first}"
    return found


def shared_no_longer(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Finding]:
    """Tensors that were one with another, and are not any more, by two answers of :func:`tensors_of`."""
    for name, told in before.items():
        if told.startswith(_SAME) and not after.get(name, told).startswith(_SAME):
            other = told.removeprefix(_SAME)
            yield Finding(name, f"one tensor with {other} before; corrections gave each its own", serious=False)


def shared_modules(model: nn.Module) -> dict[str, str]:
    """Paths at which a module lives that lives at another path as well, and that path."""
    first: dict[nn.Module, str] = {}
    shared: dict[str, str] = {}
    for path, part in _parts(model):
        if first.setdefault(part, path) != path and not _within(path, shared):
            shared[path] = first[part]
    return shared


def own_modules(model: nn.Module, tensors: Mapping[str, str], shared: Mapping[str, str]) -> None:
    """Let modules be shared as in ``shared``, and parametrized only where ``tensors`` has what they compute from.

    Args:
        model: Changed in place.
        tensors: As :func:`tensors_of` gives them.
        shared: As :func:`shared_modules` gives them.

    Raises:
        QuantizationError: The model has other modules.
    """
    first: dict[nn.Module, str] = {}
    for path, _ in list(_parts(model)):
        part = model.get_submodule(path)
        if path in shared:
            _set(model, path, _get(model, shared[path]))
        elif first.setdefault(part, path) != path and not _within(path, shared):
            first[own := _shallow(part)] = path
            _set(model, path, own)
    computed = {name.partition(".parametrizations.")[0] for name in tensors if ".parametrizations." in name}
    for path, part in list(model.named_modules()):
        if parametrize.is_parametrized(part) and path not in computed and hasattr(part, "weight"):
            plain: Any = part
            _put(model, part, with_parameters(part, plain.weight, getattr(plain, "bias", None)))


def make_missing(model: nn.Module, tensors: Mapping[str, str]) -> None:
    """Give a model the tensors that ``tensors`` names and that it has a place for, such as a bias that was ``None``.

    Of the type of the layer's weight: before freezing, which takes that away.

    Raises:
        QuantizationError: It has no place for one.
    """
    for name in tensors.keys() - _owned(model).keys():
        _make(model, name, tensors)


def own_tensors(model: nn.Module, tensors: Mapping[str, str]) -> None:
    """Let a model's tensors be shared as ``tensors`` says, once each is there; their values do not matter.

    Args:
        model: Changed in place.
        tensors: As :func:`tensors_of` gives them.

    Raises:
        QuantizationError: The model has others, or of another shape.
    """
    owned = _owned(model)
    _require(not tensors.keys() - owned.keys(), sorted(tensors.keys() - owned.keys()), "are only in the recipe")
    _require(not owned.keys() - tensors.keys(), sorted(owned.keys() - tensors.keys()), "are not in the recipe")
    seen: dict[Any, str] = {}
    for name, (owner, key, tensor) in owned.items():
        told = tensors[name]
        if told.startswith(_SAME):
            other = told.removeprefix(_SAME)
            _require(other in owned, [other], "are only in the recipe")
            source, source_key, _ = owned[other]
            _home(owner, key)[key] = _home(source, source_key)[source_key]
            continue
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        _require(shape == told, [name], f"is {shape}, in the recipe {told}")
        if seen.setdefault(_storage(tensor), name) != name:
            _home(owner, key)[key] = _like(tensor, tensor.detach().clone())
    different = [name for name, told in tensors_of(model).items() if tensors[name] != told]
    _require(not different, different, "are shared in another way")


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules under each of their paths, those around others first, without quantizers and their places."""
    for path, part in model.named_modules(remove_duplicate=False):
        if path and not isinstance(part, (QuantStub, StoresFormat)):
            yield path, part


def _owned(model: nn.Module) -> dict[str, tuple[nn.Module, str, torch.Tensor]]:
    """Each tensor of the state by name, with its module and the name there."""
    found = {}
    for path, part in (("", model), *_parts(model)):
        buffers = {key: t for key, t in part._buffers.items() if key not in part._non_persistent_buffers_set}
        for key, tensor in (*part._parameters.items(), *buffers.items()):
            if tensor is not None:
                found[f"{path}.{key}" if path else key] = (part, key, tensor)
    return found


def _storage(tensor: torch.Tensor) -> int:
    """The same for tensors that share memory."""
    return (tensor.untyped_storage().data_ptr() if tensor.device.type != "meta" else 0) or id(tensor)


def _identity(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The same for tensors that are one."""
    return _storage(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _within(path: str, shared: Mapping[str, str]) -> bool:
    """Whether a path is, or lies in, one of ``shared``."""
    return any(path == other or path.startswith(f"{other}.") for other in shared)


def _get(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise QuantizationError(f"The recipe has a module at {path!r}, and the model has none. {_REBUILD}") from None


def _set(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, key = path.rpartition(".")
    _get(model, parent)._modules[key] = module


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Let ``new`` take the place of ``old`` everywhere."""
    for owner in list(model.modules()):
        owner._modules.update({key: new for key, part in owner._modules.items() if part is old})


def _shallow(module: nn.Module) -> nn.Module:
    """Another module with the same tensors and parts."""
    copied = module.__new__(type(module))
    copied.__dict__ = {
        k: dict(v) if k in ("_parameters", "_buffers", "_modules") else v for k, v in vars(module).items()
    }
    return copied


def _home(owner: nn.Module, key: str) -> dict[str, Any]:
    return owner._parameters if key in owner._parameters else owner._buffers


def _like(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    if not isinstance(old, nn.Parameter):
        return new
    new = nn.Parameter(new, old.requires_grad)
    take_gradient_hooks(new, old)
    return new


def _make(model: nn.Module, name: str, tensors: Mapping[str, str]) -> None:
    """Make a tensor that a module has a place for: a bias or a weight that is ``None``."""
    path, _, key = name.rpartition(".")
    owner = _get(model, path)
    _require(key in owner._parameters or key in owner._buffers, [name], "are only in the recipe")
    shape = tensors[tensors[name].removeprefix(_SAME)] if tensors[name].startswith(_SAME) else tensors[name]
    sizes = [] if shape == "scalar" else [int(size) for size in shape.split("x")]
    known = next((t for t in (*owner.parameters(), *model.parameters()) if t.is_floating_point()), torch.zeros(()))
    _home(owner, key)[key] = (
        nn.Parameter(known.new_zeros(sizes), known.requires_grad)
        if key in owner._parameters
        else known.new_zeros(sizes)
    )


def _require(holds: bool, names: list[str], problem: str) -> None:
    if holds:
        return
    listed = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise QuantizationError(f"The recipe does not fit the model's tensors: {listed} {problem}. {_REBUILD}")
