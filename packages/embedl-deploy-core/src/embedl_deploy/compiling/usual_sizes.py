"""The sizes of an engine's tensors with open dimensions at the usual shapes of its inputs.

A compiler gives its own names to tensors, and −1 for sizes that are open. A layer's tensor holds one of the values that
the layer's ONNX nodes compute or read, whose shapes follow from those of the inputs. Which of them, its name says, or
its shape: the sizes that are fixed. Channels may be padded, and dimensions merged. Who writes a tensor knows best.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from embedl_deploy.artifact import sizes_of
from embedl_deploy.engine import EngineLayer, EngineTensor

if TYPE_CHECKING:
    import onnx_ir as ir

_Shape = tuple[int, ...]
#: Channels are padded by less than this.
_PADDING = 32


def with_usual_sizes(
    layers: Sequence[EngineLayer], model: "ir.Model", shapes: Mapping[str, _Shape]
) -> tuple[EngineLayer, ...]:
    """The layers with the elements of their open tensors, as far as they can be told.

    Args:
        layers: They know the ONNX nodes that went into them.
        model: The file.
        shapes: The shapes of its values at the usual shapes of the inputs, by name.
    """
    if not any(tensor.is_unknown for layer in layers for tensor in (*layer.inputs, *layer.outputs)):
        return tuple(layers)
    nodes = {node.name: node for node in model.graph.all_nodes() if node.name}
    found: dict[str, int] = {}

    def note(tensors: Iterable[EngineTensor], values: "Sequence[ir.Value]") -> None:
        for tensor in tensors:
            if tensor.is_unknown and tensor.name not in found:
                elements = _elements(tensor, values, shapes)
                if elements is not None:
                    found[tensor.name] = elements

    around = [_values([nodes[name] for name in layer.onnx_nodes if name in nodes]) for layer in layers]
    for layer, (read, written) in zip(layers, around, strict=True):
        note(layer.outputs, [*written, *read])
    for layer, (read, written) in zip(layers, around, strict=True):
        note(layer.inputs, [*read, *written])
    for layer in (layer for layer in layers if layer.is_reformat):  # the same values in another place
        pair = [*layer.inputs[:1], *layer.outputs[:1]]
        known = [found[tensor.name] for tensor in pair if tensor.name in found]
        if known and len({tensor.shape for tensor in pair}) == 1:
            found.update((tensor.name, known[0]) for tensor in pair if tensor.name not in found)

    def sized(tensors: tuple[EngineTensor, ...]) -> tuple[EngineTensor, ...]:
        return tuple(replace(t, elements=found.get(t.name)) if t.is_unknown else t for t in tensors)

    return tuple(replace(layer, inputs=sized(layer.inputs), outputs=sized(layer.outputs)) for layer in layers)


def _values(nodes: "Sequence[ir.Node]") -> "tuple[list[ir.Value], list[ir.Value]]":
    """What nodes read from others, and what they compute: first what others read, the last of it first."""
    inside = set(nodes)
    computed = [value for node in reversed(nodes) for value in node.outputs]
    read = [value for node in nodes for value in node.inputs if value is not None and value.producer() not in inside]

    def leaves(value: "ir.Value") -> bool:
        return value.is_graph_output() or any(user not in inside for user in value.consumers())

    return read, sorted(computed, key=lambda value: not leaves(value))


def _elements(tensor: EngineTensor, values: "Sequence[ir.Value]", shapes: Mapping[str, _Shape]) -> int | None:
    """The elements of the value that a tensor holds, padded as the tensor is; ``None`` if none fits."""
    if len(shapes.get(tensor.name, ())) == len(tensor.shape):
        return math.prod(shapes[tensor.name])
    candidates = [
        (shapes[str(value.name)], sizes_of(value))
        for value in values
        if str(value.name) in shapes and None in (sizes_of(value) or (None,))
    ]
    for shape, _ in candidates:
        if (elements := _placed(tensor.shape, shape, padding=0)) is not None:
            return elements
    for shape, sizes in candidates:
        if sizes is not None and _fixed(tensor.shape) == math.prod(size for size in sizes if size is not None):
            return math.prod(shape)
    padded = [_placed(tensor.shape, shape, padding=_PADDING - 1) for shape, _ in candidates]
    return next((elements for elements in padded if elements is not None), None)


def _fixed(shape: _Shape) -> int:
    return math.prod(size for size in shape if size >= 0)


def _placed(shape: _Shape, of_value: _Shape, padding: int) -> int | None:
    """Elements of a tensor of ``shape`` whose open sizes are those of a value; ``None`` if the others differ."""
    if len(shape) != len(of_value):
        return None
    pairs = list(zip(shape, of_value, strict=True))
    if not all(own < 0 or 0 <= own - other <= padding for own, other in pairs):
        return None
    return math.prod(other if own < 0 else own for own, other in pairs)
