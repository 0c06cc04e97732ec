"""Merges external weights into an ONNX file, without loading them into memory.

A library for protocol buffers holds a message twice while it writes it, and ONNX Runtime a third time what it reads; of
weights that lie beside the file it reads as much as it needs. So a large file is written, checked and run with its
weights beside it, and then they are put into it. A message is a row of fields, and a field that is a message or bytes
is its number, its length and its bytes: the weights go, as they are, where a library would have written them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # in a model, in a graph, in a tensor


@dataclass(frozen=True)
class _Weight:
    """A tensor of a graph: what is before its numbers, where these are, and what is after."""

    before: bytes
    file: Path | None
    offset: int
    length: int
    behind: bytes

    @property
    def size(self) -> int:
        """Of the message, in bytes."""
        return len(self.before) + self.length + len(self.behind)


def put_into_one_file(path: Path) -> None:
    """Put the weights that lie beside an ONNX file into it, and delete the files that they were in.

    Args:
        path: The file; with its weights it has to be under 2 GiB, where protocol buffers end.
    """
    import onnx

    model = onnx.load(os.fspath(path), load_external_data=False)
    for tensor in _tensors_inside(model.graph):
        if onnx.external_data_helper.uses_external_data(tensor):  # of a branch; the large ones are in the main graph
            onnx.external_data_helper.load_external_data_for_tensor(tensor, os.fspath(path.parent))
            _forget_place(tensor)
    weights = [_weight(tensor, path.parent) for tensor in model.graph.initializer]
    of_model, of_graph = _around(model, _GRAPH), _around(model.graph, _INITIALIZER)
    heads = [_field(_INITIALIZER, weight.size) for weight in weights]
    size = sum(map(len, (*of_graph, *heads))) + sum(weight.size for weight in weights)
    whole = path.with_name(f"{path.name}.whole")
    with whole.open("wb") as file:
        file.write(of_model[0] + _field(_GRAPH, size) + of_graph[0])
        for head, weight in zip(heads, weights, strict=True):
            file.write(head + weight.before)
            if weight.file is not None:
                _copy_into(file, weight)
            file.write(weight.behind)
        file.write(of_graph[1] + of_model[1])
    whole.replace(path)
    for beside in {weight.file for weight in weights if weight.file is not None}:
        beside.unlink()


def _weight(tensor: Any, folder: Path) -> _Weight:
    import onnx

    if not onnx.external_data_helper.uses_external_data(tensor):
        return _Weight(tensor.SerializeToString(), None, 0, 0, b"")
    place = {entry.key: entry.value for entry in tensor.external_data}
    _forget_place(tensor)
    before, behind = _around(tensor, _RAW_DATA)
    length = int(place["length"])
    return _Weight(
        before + _field(_RAW_DATA, length), folder / place["location"], int(place.get("offset", 0)), length, behind
    )


def _forget_place(tensor: Any) -> None:
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _tensors_inside(graph: Any) -> Iterator[Any]:
    """The initializers of the graphs in a graph's nodes."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from inner.initializer
                yield from _tensors_inside(inner)


def _around(message: Any, number: int) -> tuple[bytes, bytes]:
    """What a message has in its fields before one, and after it; they are written in the order of their numbers."""
    sides = []
    for is_outside in (number.__le__, number.__ge__):
        part = type(message)()
        part.CopyFrom(message)
        for field, _ in message.ListFields():
            if is_outside(field.number):
                part.ClearField(field.name)
        sides.append(part.SerializeToString(deterministic=True))
    return sides[0], sides[1]


def _field(number: int, length: int) -> bytes:
    """The head of a field that has a length."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    """A whole number, seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _copy_into(file: BinaryIO, weight: _Weight) -> None:
    """Append a weight's numbers."""
    assert weight.file is not None
    with weight.file.open("rb") as source:
        source.seek(weight.offset)
        left = weight.length
        while left:
            block = source.read(min(left, 1 << 20))
            if not block:
                raise EOFError(f"{os.fspath(weight.file)!r} ends {left} bytes before the end of a weight in it.")
            file.write(block)
            left -= len(block)
