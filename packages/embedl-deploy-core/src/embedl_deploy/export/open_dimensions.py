"""The open dimensions of a file: the batch, or those that the user chose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.capture.captured import NOT_SYMBOLIC
from embedl_deploy.capture.closed_dimensions import CLOSED_DIMENSIONS
from embedl_deploy.errors import ExportError
from embedl_deploy.graph.derived_sizes import upper_limit
from embedl_deploy.graph.exported_inputs import EXPORTED_INPUTS, ExportedInputs
from embedl_deploy.graph.open_dimensions import OpenDimensions, open_dimensions_of


def dimensions_of_file(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any, *, dynamic_batch: bool
) -> OpenDimensions:
    """The dimensions that are to be open in a file.

    Args:
        model: The model.
        args: Its inputs.
        kwargs: Its keyword inputs.
        dynamic_shapes: What the user asks for; ``None`` for what was asked for when the model was captured.
        dynamic_batch: Dimension 0 of all tensors as well.

    Raises:
        InputError: ``dynamic_shapes`` does not fit the inputs.
    """
    if dynamic_shapes is not None:
        opened = OpenDimensions.asked(model, args, kwargs, dynamic_shapes)
    else:
        opened = open_dimensions_of(model) or OpenDimensions({})
    if not dynamic_batch:
        return opened
    return OpenDimensions.first_of_all(model, args, kwargs, torch.export.Dim("batch", min=1)).with_more(opened)


@dataclass(frozen=True)
class Limits:
    """What sizes an open dimension of a file may have.

    Attributes:
        low: The smallest.
        high: The largest; ``None`` if there is no limit.
        narrowed: Whether the model's code has set a limit that the user has not.
    """

    low: int
    high: int | None
    narrowed: bool


def limits_of_file(
    program: "torch.onnx.ONNXProgram", asked: Sequence[dict[int, Any]]
) -> dict[str, dict[int, Limits]]:  # quoted: looking it up imports the exporter
    """The limits of the open dimensions of each input of a file, by name.

    A branch on a size (``if x.shape[1] < 512``) is taken as the example takes it, and so limits what the file is for;
    ``torch.export`` keeps such limits where it was not given others.

    Args:
        program: The file.
        asked: The open dimensions of its inputs.
    """
    exported = program.exported_program
    values: list[Any] = [None] * len(asked)
    ranges: Any = {}
    if exported is not None:
        placeholders = {node.name: node.meta.get("val") for node in exported.graph.find_nodes(op="placeholder")}
        given = [placeholders.get(str(name)) for name in exported.graph_signature.user_inputs]
        values, ranges = [value for value in given if isinstance(value, torch.Tensor)], exported.range_constraints
    found: dict[str, dict[int, Limits]] = {}
    for value, traced, dimensions in zip(program.model.graph.inputs, values, asked, strict=False):
        for at, dim in dimensions.items():
            size = None if traced is None else traced.shape[at]
            known = ranges.get(size.node.expr) if isinstance(size, torch.SymInt) else None
            found.setdefault(str(value.name), {})[at] = _limits(dim, known)
    return found


def _smallest(dim: Any) -> int:
    """The least size of a dimension; of ``32 * Dim("w")`` that of one ``w``, which a tensor with values has."""
    root = getattr(dim, "root", None)
    return int(dim.min) if root is None else int(dim.fn(max(int(root.min), 1)))


def _limits(dim: Any, known: Any) -> Limits:
    """Of what the user asks for, and the range that ``torch.export`` has found."""
    low, high = 1, None
    if isinstance(dim, torch.export.Dim):
        low, high = max(_smallest(dim), 1), upper_limit(dim.max)
    narrowed = False
    if known is not None and known.lower > max(low, 2):  # two is what an open size is taken for at least
        low, narrowed = int(known.lower), True
    found = None if known is None else upper_limit(known.upper)
    if found is not None and (high is None or found < high):
        high, narrowed = found, True
    return Limits(low, high, narrowed)


def shapes_of_inputs(
    limits: dict[str, dict[int, Limits]], inputs: Sequence[Any], sizes: Sequence[tuple[int, ...]]
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The smallest, usual and largest shape of each input of a file that has open dimensions.

    Args:
        limits: Of its open dimensions.
        inputs: The inputs of the exported graph, of ``onnx_ir``.
        sizes: Their shapes in the example.
    """
    found: dict[str, tuple[tuple[int, ...], ...]] = {}
    for value, usual in zip(inputs, sizes, strict=False):
        of_input = limits.get(str(value.name))
        if of_input:
            low, high = list(usual), list(usual)
            for at, one in of_input.items():
                low[at], high[at] = one.low, max(usual[at], one.low) if one.high is None else one.high
            found[str(value.name)] = (tuple(low), usual, tuple(high))
    return found


def notes_on_shapes(
    shapes: Mapping[str, tuple[tuple[int, ...], ...]], limits: dict[str, dict[int, Limits]]
) -> list[str]:
    """Where the example's size is all that is known of an open dimension, so that an engine takes that one only."""
    alone = [
        (name, at, largest[at])
        for name, (smallest, _, largest) in shapes.items()
        for at, one in limits[name].items()
        if one.high is None and smallest[at] == largest[at]
    ]
    if not alone:
        return []
    name, at, size = alone[0]
    more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
    named = f"dynamic_shapes={{{name!r}: {{{at}: torch.export.Dim('size', max=...)}}}}"
    return [
        f"dimension {at} of {name!r}{more} is open in the file but has no upper limit, so 'shapes' has the example's "
        f"size, {size}, and an engine compiled for these shapes accepts only that size. Set a limit, {named}, or pass "
        "a larger shape to compile"
    ]


def notes_on_limits(limits: dict[str, dict[int, Limits]]) -> list[str]:
    """Which sizes a file is not for, because of branches in the model; it cannot refuse them."""
    return [
        f"the file is valid only for sizes {one.low} {'or more' if one.high is None else f'to {one.high}'} of "
        f"dimension {at} of {name!r}: for other sizes the model takes another branch"
        for name, of_input in limits.items()
        for at, one in of_input.items()
        if one.narrowed
    ]


def notes_on_ones(model: nn.Module, opened: OpenDimensions) -> list[str]:
    """That a file is not for a size of one, which it cannot refuse, where the captured graph refuses it."""
    fixed_to = model.meta.get(EXPORTED_INPUTS) if isinstance(model, fx.GraphModule) else None
    if not opened or not isinstance(fixed_to, ExportedInputs):
        return []
    dimensions = sorted({at for ones in fixed_to.not_one for at in ones})
    return [
        f"the file is valid only for sizes of two or more in dimension {at}: for one, the model computes something else"
        for at in dimensions
    ]


def refuse_closed(model: nn.Module, inputs: Sequence[Any], asked: Sequence[dict[int, Any]]) -> None:
    """The exporter closes a dimension that the model fixes, silently.

    Args:
        model: What was exported.
        inputs: The inputs of the exported graph, of ``onnx_ir``.
        asked: For each of them, the dimensions that were to be open.

    Raises:
        ExportError: One of them has a fixed size.
    """
    closed = [
        f"dimension {at} of {value.name!r} is {value.shape[at]}"
        for value, dimensions in zip(inputs, asked, strict=True)
        for at in dimensions
        if value.shape and isinstance(value.shape[at], int)
    ]
    if closed:
        raise ExportError(
            f"The model fixes dimensions that should be open: {', '.join(closed)}. Nothing was written. "
            f"{advice_on_closed(model)}"
        )


def advice_on_closed(model: nn.Module) -> str:
    """What to do where dimensions that were to be open are fixed, and which line of the model did that, if known."""
    meta = model.meta if isinstance(model, fx.GraphModule) else {}
    fixed = "or export with fixed sizes: dynamic_batch=False, dynamic_shapes={}."
    if EXPORTED_INPUTS not in meta:
        return f"Compute sizes from the input (x.shape[0], -1) instead of writing literals; {fixed}"
    closed = "; ".join(meta.get(CLOSED_DIMENSIONS, ()))
    known = f"When the model was captured by torch.export, {closed}. " if closed else ""
    symbolic = "" if meta.get(NOT_SYMBOLIC) else 'or with trace="symbolic"; '
    return f"{known}Transform the model with dynamic_shapes that name these dimensions; {symbolic}{fixed}"


def asked_of_tensors(
    opened: OpenDimensions, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[dict[int, Any]]:
    """The open dimensions of each tensor of the inputs, as a file has them."""
    leaves = pytree.tree_leaves((args, kwargs))
    found = opened.of_tensors(model, args, kwargs)
    return [dims for value, dims in zip(leaves, found, strict=True) if isinstance(value, torch.Tensor)]
