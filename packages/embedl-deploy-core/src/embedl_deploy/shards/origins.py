"""Which tensor of the shards each tensor of a transformed model is.

A model on the meta device keeps its parameters through capture and rewrites, or views of them: a transposed weight,
or a third of a projection, has the memory of the parameter that it shows. So the memory tells, though it holds nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from embedl_deploy.errors import InputError
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.shards.source import Shards

#: Types whose values are among those of another.
_WIDER = {
    torch.float16: (torch.float32, torch.float64),
    torch.bfloat16: (torch.float32, torch.float64),
    torch.float32: (torch.float64,),
}


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from.

    Attributes:
        name: Of the tensor in the shards.
        shape: Of that tensor.
        dtype: Of the model's tensor.
        view: Sizes, strides and offset, of what shows it in another way; ``None`` if it is that tensor.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    view: tuple[tuple[int, ...], tuple[int, ...], int] | None


def find_origins(result: TransformationResult, shards: Shards) -> dict[str, Origin]:
    """The origin of every tensor on the meta device, by its name in the transformed model.

    Raises:
        InputError: The shards lack a tensor, or have it in another shape or type; or a tensor was computed from
            weights while the model was transformed.
    """
    plan = result.report.plan
    names: dict[int, list[str]] = {}
    kept: dict[int, torch.Tensor] = {}
    for name, tensor in plan.captured.tensors().items():
        if tensor is not None and tensor.is_meta:
            names.setdefault(_memory(tensor), []).append(name)
            kept[_memory(tensor)] = tensor
    also = _other_names(plan.original)
    _require_no_values(plan.captured.tensors(), shards)
    found: dict[str, Origin] = {}
    missing: dict[str, bool] = {}  # and whether it is a parameter
    for name, tensor in tensors_by_name(result.model):
        if not tensor.is_meta:
            continue
        source = kept.get(_memory(tensor))
        if source is None:
            raise InputError(
                f"{name!r} was computed from weights when the model was transformed, and those are on the meta device. "
                "Transform without the pattern that computes it: plan.disable(...), or other patterns."
            )
        known = names[_memory(tensor)]
        choices = dict.fromkeys((*known, *(other for each in known for other in also.get(each, ()))))
        stored = next((choice for choice in choices if choice in shards.tensors), None)
        if stored is None:
            missing[known[0]] = isinstance(tensor, nn.Parameter)
            continue
        _require_fit(stored, source, shards)
        found[name] = Origin(stored, tuple(source.shape), source.dtype, _view(tensor, source))
    _require_all(missing, [*plan.captured.tensors(), *also], shards)
    return found


def _require_no_values(tensors: Mapping[str, torch.Tensor | None], shards: Shards) -> None:
    """Refuse parameters that have values, and other values in the shards."""
    both = [
        name for name, x in tensors.items() if isinstance(x, nn.Parameter) and not x.is_meta and name in shards.tensors
    ]
    if both:
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        raise InputError(
            f"{both[0]!r}{more} of the model have values, and {str(shards.path)!r} has others for them. Make the model "
            "with torch.device('meta'), so that it takes no memory and its weights are those of the shards; or pass a "
            "model with its weights to quantize."
        )


def _require_all(missing: dict[str, bool], names: Iterable[str], shards: Shards) -> None:
    if not missing:
        return
    listed = ", ".join(map(repr, list(missing)[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    computed = [name for name, is_parameter in missing.items() if not is_parameter]
    known = set(names)
    others = [name for name in shards.tensors if name not in known]
    more = f"; it has {', '.join(map(repr, others[:3]))} beside" if others else ""
    cure = f"Give the folder with the weights of this model, under the names of its state_dict{more}."
    if computed:
        cure = (
            f"{computed[0]!r} is a buffer that no checkpoint has, because the model computes it when it is made: make "
            "it, or the module that has it, outside of torch.device('meta'), and put it into the model first."
        )
    raise InputError(f"{str(shards.path)!r} lacks {len(missing)} tensor(s) of the model: {listed}. {cure}")


def _require_fit(name: str, tensor: torch.Tensor, shards: Shards) -> None:
    stored = shards.tensors[name]
    if stored.shape != tuple(tensor.shape):
        raise InputError(
            f"{name!r} has the shape {stored.shape} in {str(stored.file)!r}, and {tuple(tensor.shape)} in the model. "
            "Give the weights of this model, or make the model by their configuration."
        )
    if stored.dtype != tensor.dtype and tensor.dtype not in _WIDER.get(stored.dtype, ()):
        raise InputError(
            f"{name!r} is {stored.dtype} in {str(stored.file)!r}, and {tensor.dtype} in the model, which cannot hold "
            "it without rounding. Make the model in the type of its weights."
        )


def _view(tensor: torch.Tensor, source: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...], int] | None:
    own = (tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()))
    return None if own == (tuple(source.shape), tuple(source.stride()), int(source.storage_offset())) else own


def _memory(tensor: torch.Tensor) -> int:
    """The same for tensors that share memory, which need not be there."""
    return int(tensor.untyped_storage()._cdata)


def _other_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The names of every tensor that has more than one: weights that are tied."""
    same: dict[int, list[str]] = {}
    for name, tensor in tensors_by_name(model):
        same.setdefault(id(tensor), []).append(name)
    return {name: tuple(all_of) for all_of in same.values() if len(all_of) > 1 for name in all_of}


def tensors_by_name(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, by each of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
