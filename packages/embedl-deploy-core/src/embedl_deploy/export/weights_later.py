"""Files whose large weights are read when they are written, one after the other.

A weight that is not there is stood in for by one number that is seen in every place: a tensor of the right shape and
type that takes no memory. The exporter passes it on as it is. Before the file is written, each gets the place of its
numbers.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch

from embedl_deploy.errors import ExportError
from embedl_deploy.export.folding import LARGEST

if TYPE_CHECKING:
    import onnx_ir as ir

#: Reads the numbers of a weight.
Read = Callable[[], torch.Tensor]
#: Of stand-ins, by the addresses of their numbers.
_later: ContextVar[Mapping[int, Read]] = ContextVar("weights_later", default={})  # noqa: B039 - nobody writes to it


def may_come_later(shape: tuple[int, ...]) -> bool:
    """Whether nothing is computed of a constant of that shape before the file is written."""
    return torch.Size(shape).numel() > LARGEST


def stand_in(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor without memory of its own, whose address is that of no other."""
    return torch.zeros((), dtype=dtype).expand(shape)


@contextmanager
def weights_later(weights: Mapping[int, Read]) -> Iterator[None]:
    """Within the block, exported models may have stand-ins for weights: what reads each, by its ``data_ptr()``."""
    before = _later.set(weights)
    try:
        yield
    finally:
        _later.reset(before)


def are_later() -> bool:
    """Whether there are stand-ins."""
    return bool(_later.get())


def tell_where_weights_are(model: "ir.Model") -> None:
    """Put what reads a weight in the place of its stand-in.

    Raises:
        ExportError: Something was computed of a stand-in.
    """
    from embedl_deploy.quantize.grid.onnx_operators import ChangedNumbers  # here: it imports the exporter

    left = dict(_later.get())
    for value in model.graph.initializers.values():
        tensor = value.const_value
        holder = tensor.source if isinstance(tensor, ChangedNumbers) else value
        address = _address(holder.const_value)
        if address is not None and address in _later.get():
            holder.const_value = _read_later(_later.get()[address], holder.const_value)
            left.pop(address, None)
    if left:
        raise ExportError(
            f"{len(left)} weights of the file are computed from those of the model before it is written, so they "
            "cannot be read from shards. Load the model, load_quantized(result, folder), and export that."
        )


def _address(tensor: Any) -> int | None:
    raw = getattr(tensor, "raw", None)
    return raw.data_ptr() if isinstance(raw, torch.Tensor) else None


def _read_later(read: Read, like: Any) -> "ir.LazyTensor":
    import onnx_ir as ir

    def numbers() -> Any:
        return ir.tensor_adapters.TorchTensor(read().contiguous())

    return ir.LazyTensor(numbers, dtype=like.dtype, shape=like.shape, name=like.name)
