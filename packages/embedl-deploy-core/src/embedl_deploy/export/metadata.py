"""The metadata of a file's nodes: the modules that they came from, but nothing about the machine.

torch's exporter writes the source lines of the model into the file, with the paths of the author's machine, and the
classes of its own internals. Two machines that export the same model write the same bytes.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

#: The one entry that is kept: it holds the paths of modules.
_KEPT = "pkg.torch.onnx.name_scopes"


def keep_modules_only(model: "ir.Model") -> None:
    """Take all metadata and documentation out of a model but the modules that nodes came from, in place."""
    for holder in (model, model.graph, *model.functions.values()):
        _clear(holder)
    for node in _nodes(model):
        scopes = node.metadata_props.get(_KEPT)
        _clear(node)
        if scopes is not None:
            node.metadata_props[_KEPT] = scopes
        for part in (*node.outputs, *node.attributes.values()):
            _clear(part)
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _clear(value)
        if value.const_value is not None:
            _clear_tensor(value.const_value)


def _nodes(model: "ir.Model") -> "Iterator[ir.Node]":
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _clear_tensor(tensor: Any) -> None:
    import onnx_ir as ir

    if isinstance(tensor, ir.serde.TensorProtoTensor):  # of a translation that holds constants, as torch.polar's does
        tensor.raw.ClearField("doc_string")
        tensor.raw.ClearField("metadata_props")
    else:
        _clear(tensor)


def _clear(part: Any) -> None:
    part.doc_string = None
    if hasattr(part, "metadata_props"):
        part.metadata_props.clear()
