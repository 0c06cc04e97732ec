"""An ONNX file with quantizers at some of its points, made of the file that has them at all.

A model is exported once. In the file of a candidate the readers of a quantizer that are to be in float read what the
quantizer was given, and a quantizer that nobody reads goes. That is what an export of the candidate gives, node for
node, without the seconds that it takes.
"""

import logging
import os
from ast import literal_eval
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedl_deploy.artifact import read_onnx
from embedl_deploy.logs import quiet
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize.reporting.report import PointReport

if TYPE_CHECKING:
    import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"


class PlacedFile:
    """A file with all quantizers, from which files with some of them are made.

    Args:
        path: The file, as ``export_onnx`` wrote it, without integer weights.
        points: The points whose quantizers are in it.
    """

    def __init__(self, path: str | os.PathLike[str], points: Iterable[PointReport]) -> None:
        self.path = Path(path)
        self.points = frozenset(points)

    def write(self, path: str | os.PathLike[str], points: Collection[PointReport]) -> None:
        """Write the file with quantizers at some points alone.

        Args:
            path: Where.
            points: Those that are quantized.
        """
        import onnx_ir as ir

        model = read_onnx(self.path)
        self.place(model, points)
        ir.save(model, os.fspath(path))

    def place(self, model: "ir.Model", points: Collection[PointReport]) -> None:
        """Take the quantizers of all other points out of the file's model."""
        from embedl_deploy.export.lowering import simplify  # here: it imports half of torch.export

        wanted = {(point.path, point.stub) for point in points}
        whole = {point.stub for point in points if point.kind is PointKind.OUTPUT}
        inside = {point.stub for point in points if point.kind in (PointKind.WEIGHT, PointKind.INNER)}
        readers = {point.stub: [] for point in self.points}  # type: dict[str, list[str]]
        for point in self.points:
            readers[point.stub].append(point.path)
        for node in list(model.graph):
            stub = _stub_of(node)
            if node.op_type != "DequantizeLinear" or stub is None or stub not in readers:
                continue
            if stub in whole or stub in inside:
                continue
            given = node.inputs[0].producer().inputs[0]  # type: ignore[union-attr]  # QuantizeLinear is before it
            for use in list(node.outputs[0].uses()):
                path = next((path for path in readers[stub] if path in _scopes(use.node)), None)
                if path is None or (path, stub) not in wanted:
                    use.node.replace_input_with(use.idx, given)
        _drop_unread(model)
        with quiet("onnxscript", below=logging.ERROR), quiet("onnx_ir", below=logging.ERROR):
            simplify(model)


def _drop_unread(model: "ir.Model") -> None:
    """Remove quantizers, and their scales and zero points, that nobody reads."""
    outputs = set(model.graph.outputs)
    for node in reversed(list(model.graph)):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not any(
            value.uses() or value in outputs for value in node.outputs
        ):
            model.graph.remove(node, safe=True)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and value not in outputs:
            del model.graph.initializers[name]


def _scopes(node: Any) -> list[str]:
    """Paths of the modules that a node comes from, the outermost first."""
    text = node.metadata_props.get(_SCOPES)
    return list(literal_eval(text)) if text else []


def _stub_of(node: Any) -> str | None:
    """The path of the stub that a node quantizes for."""
    return next((path.removesuffix(".quantizer") for path in _scopes(node) if path.endswith(".quantizer")), None)
