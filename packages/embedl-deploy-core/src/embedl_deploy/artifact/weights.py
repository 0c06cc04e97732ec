"""Checks that every tensor of an ONNX file has the data that it declares, in the file or in a file next to it.

Nothing is read but sizes. A tensor that declares more numbers than there are would otherwise be noticed by whoever
looks at it first, which may be a compiler; and a location such as ``../../etc/passwd`` would be read.
"""

import itertools
import math
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from embedl_deploy.errors import InputError
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

#: Where the numbers of a type lie that are not raw bytes; of all others in ``int32_data``.
_FIELDS = {
    "FLOAT": "float_data",
    "COMPLEX64": "float_data",
    "DOUBLE": "double_data",
    "COMPLEX128": "double_data",
    "INT64": "int64_data",
    "UINT32": "uint64_data",
    "UINT64": "uint64_data",
    "STRING": "string_data",
}


class _Range(NamedTuple):
    """Bytes of a file that are a tensor's."""

    file: Path
    start: int
    stop: int
    tensor: str


def check_weights(model: "onnx.ModelProto", path: Path | None) -> None:
    """Look whether every tensor of a model has its numbers.

    Args:
        model: The model: its graphs, local functions, and the graphs in attributes.
        path: Where it was read from; ``None`` for one in memory, which has no folder to find files in.

    Raises:
        InputError: A tensor declares other sizes than it has; its file is not there, is too short, or lies outside the
            model's folder; or two tensors share a part of their bytes.
    """
    what = "The model in memory" if path is None else repr(os.fspath(path))
    ranges: list[_Range] = []
    for tensor in _tensors(model):
        checked = _Tensor(tensor, what)
        if tensor.data_location == tensor.EXTERNAL:
            ranges.append(checked.outside(path))
        else:
            checked.inside()
    ranges = sorted(each for each in ranges if each.start < each.stop)
    for one, other in itertools.pairwise(ranges):
        same = (one.start, one.stop) == (other.start, other.stop)  # equal weights may be stored once
        if one.file == other.file and other.start < one.stop and not same:
            raise InputError(
                f"{what}: the weights {one.tensor!r} and {other.tensor!r} share a part of their bytes in "
                f"{one.file.name!r} ({one.start} to {one.stop}, {other.start} to {other.stop}). Write the file again."
            )


@checked
def check_weight_files(model: "ir.Model") -> list[Path]:
    """The files beside a model that hold its weights, each of which is there and long enough.

    Raises:
        InputError: One is not; as ``check_weights``.
    """
    import onnx_ir as ir

    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    attributes = (each for graph in model.graphs() for node in graph for each in node.attributes.values())
    constants = [each.value for each in attributes if each.type == ir.AttributeType.TENSOR]
    external = [tensor for tensor in (*tensors, *constants) if isinstance(tensor, ir.ExternalTensor)]
    for tensor in external:
        _Tensor(ir.to_proto(tensor), "The model").outside(Path(tensor.base_dir, "model"))
    return sorted({Path(tensor.path) for tensor in external})


class _Tensor:
    """A tensor and the file that it is in, to be checked."""

    def __init__(self, proto: "onnx.TensorProto", model: str) -> None:
        import onnx_ir as ir

        self.proto = proto
        self._what = f"{model}: the weight {proto.name or '(unnamed)'!r}"
        kinds = {kind.value: kind for kind in ir.DataType if kind is not ir.DataType.UNDEFINED}
        if proto.data_type not in kinds:
            self._refuse(f"has the type {proto.data_type}, which this version of ONNX does not know")
        if any(size < 0 for size in proto.dims):
            self._refuse(f"has the shape {tuple(proto.dims)}")
        if proto.HasField("segment"):
            self._refuse("is a part of a tensor, whose other parts are elsewhere")
        self.kind = kinds[proto.data_type]
        self.count = math.prod(proto.dims)
        self.bytes = 0 if self.kind is ir.DataType.STRING else -(-self.count * self.kind.bitwidth // 8)

    def inside(self) -> None:
        """Check a tensor whose numbers are in the model's own file."""
        name = self.kind.name
        expected, unit = self.count, "numbers"
        if self.proto.HasField("raw_data"):
            if name == "STRING":
                self._refuse("is text in raw bytes")
            found, expected, unit = len(self.proto.raw_data), self.bytes, "bytes"
        else:
            found = len(getattr(self.proto, _FIELDS.get(name, "int32_data")))
            if name.startswith("COMPLEX"):
                expected *= 2
            elif name != "STRING" and self.kind.bitwidth < 8:
                expected = self.bytes  # packed
        if found != expected:
            self._refuse(
                f"has the shape {tuple(self.proto.dims)} of {name}, which is {expected} {unit}, and holds {found}"
            )

    def outside(self, model: Path | None) -> _Range:
        """Check a tensor whose numbers are in another file."""
        entries = {entry.key: entry.value for entry in self.proto.external_data}
        location = entries.get("location", "")
        if model is None:
            self._refuse(f"is in the file {location!r}; expected the path of the model, next to which that file is")
        if self.kind.name == "STRING":
            self._refuse("is text in another file, which ONNX does not allow")
        offset, length = self._number(entries, "offset") or 0, self._number(entries, "length")
        file = self._located(location, model)
        if length is not None and length != self.bytes:
            self._refuse(
                f"has the shape {tuple(self.proto.dims)} of {self.kind.name}, which is {self.bytes} bytes, and "
                f"{length} of {location!r}"
            )
        size = file.stat().st_size
        if offset + self.bytes > size:
            self._refuse(
                f"needs the bytes {offset} to {offset + self.bytes} of {location!r}, which has {size}; it is not the "
                "file that the model was written with, or was not copied whole"
            )
        return _Range(file, offset, offset + self.bytes, self.proto.name)

    def _located(self, location: str, model: Path) -> Path:
        if not location or PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor:
            self._refuse(f"is in the file {location!r}; expected a path relative to the model's folder")
        file = model.parent / location
        folders = {model.parent.resolve(), model.resolve().parent}  # a model that is a link may have both
        if not any(file.resolve().is_relative_to(folder) for folder in folders):
            self._refuse(
                f"is in {location!r}, outside the model's folder; weights are read from there only. If you trust the "
                "model, copy the file beside it"
            )
        try:
            is_file = stat.S_ISREG(file.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            self._refuse(f"is in {location!r}, which does not exist. Copy it next to the model")
        except ValueError:  # a path that no file can have
            self._refuse(f"is in {location!r}; expected a path relative to the model's folder")
        if not is_file:
            self._refuse(f"is in {location!r}, which is not a file")
        return file.resolve()

    def _number(self, entries: dict[str, str], key: str) -> int | None:
        text = entries.get(key)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            self._refuse(f"has the {key} {text!r}; expected a number of bytes")
        return int(text)

    def _refuse(self, why: str) -> NoReturn:
        raise InputError(f"{self._what} {why.rstrip('.')}.")


def _tensors(model: "onnx.ModelProto") -> Iterator["onnx.TensorProto"]:
    yield from _of_graph(model.graph)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)
    for function in model.functions:
        yield from _of_attributes(function.attribute_proto)
        yield from _of_nodes(function.node)


def _of_graph(graph: "onnx.GraphProto") -> Iterator["onnx.TensorProto"]:
    yield from graph.initializer
    yield from _of_sparse(graph.sparse_initializer)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: "Iterable[onnx.NodeProto]") -> Iterator["onnx.TensorProto"]:
    for node in nodes:
        yield from _of_attributes(node.attribute)


def _of_attributes(attributes: "Iterable[onnx.AttributeProto]") -> Iterator["onnx.TensorProto"]:
    for attribute in attributes:
        if attribute.type == attribute.TENSOR:
            yield attribute.t
        elif attribute.type == attribute.GRAPH:
            yield from _of_graph(attribute.g)
        elif attribute.type == attribute.SPARSE_TENSOR:
            yield from _of_sparse([attribute.sparse_tensor])
        yield from attribute.tensors
        yield from _of_sparse(attribute.sparse_tensors)
        for graph in attribute.graphs:
            yield from _of_graph(graph)


def _of_sparse(tensors: "Iterable[onnx.SparseTensorProto]") -> Iterator["onnx.TensorProto"]:
    for tensor in tensors:
        yield tensor.values
        yield tensor.indices
