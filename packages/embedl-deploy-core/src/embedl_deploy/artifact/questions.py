"""Queries on the nodes and values of an ONNX file, shared by the rules of all backends."""

from typing import TYPE_CHECKING, Any

import numpy as np

from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir


@checked
def input_of(node: "ir.Node", index: int) -> "ir.Value | None":
    """An input; ``None`` if it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


@checked
def attribute(node: "ir.Node", name: str, default: Any) -> Any:
    """The value of an attribute, or ``default``, which should be ONNX's own."""
    found = node.attributes.get(name)
    return default if found is None else found.value


@checked
def array(value: "ir.Value | None") -> "npt.NDArray[Any] | None":
    """The numbers of a constant, in float32 where numpy has no type for them; ``None`` for anything else."""
    from onnx_ir.convenience import get_const_tensor

    tensor = None if value is None else get_const_tensor(value)
    if tensor is None:
        return None
    numbers: npt.NDArray[Any] = tensor.numpy()
    return numbers if numbers.dtype.kind in "biuf" else numbers.astype(np.float32)


@checked
def sizes_of(value: "ir.Value | None") -> tuple[int | None, ...] | None:
    """The shape, with ``None`` for sizes that are open; ``None`` if not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


@checked
def fixed_sizes_of(value: "ir.Value | None") -> tuple[int, ...] | None:
    """The shape, or ``None`` if a size is open or the rank not known."""
    sizes = sizes_of(value)
    return None if sizes is None or None in sizes else tuple(size for size in sizes if size is not None)
