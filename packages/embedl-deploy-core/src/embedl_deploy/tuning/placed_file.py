"""An ONNX file with quantizers at some of its points, made of the file that has them at all.

A model is exported once. In the file of a candidate the readers of a quantizer that are to be in float read what the
quantizer was given, those that are to be in another format read another quantizer beside it, and a quantizer that
nobody reads goes. That is what an export of the candidate gives, node for node, without the seconds that it takes.
"""

import logging
import os
from ast import literal_eval
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from embedl_deploy.artifact import read_onnx
from embedl_deploy.logs import quiet
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.tuning.units import Place, place_of

if TYPE_CHECKING:
    import onnx_ir as ir

_QUANTIZERS = ("QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear")
_SCOPES = "pkg.torch.onnx.name_scopes"


class PlacedFile:
    """A file with all quantizers, from which files with some of them are made.

    Args:
        path: The file, as ``export_onnx`` wrote it, without integer weights.
        points: The points whose quantizers are in it.
        others: Calibrated quantizers of points in other formats.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        points: Iterable[PointReport],
        others: Mapping[PointReport, nn.Module] | None = None,
    ) -> None:
        self.path = Path(path)
        self.points = frozenset(points)
        self.others = others or {}

    def placed(self, points: Collection[PointReport]) -> "ir.Model":
        """The file's model with quantizers at some points alone.

        Args:
            points: Those that are quantized, each in its format.
        """
        model = read_onnx(self.path)
        self._place(model, points)
        return model

    def write(self, path: str | os.PathLike[str], points: Collection[PointReport]) -> None:
        """Write the file with quantizers at some points alone."""
        import onnx_ir as ir

        ir.save(self.placed(points), os.fspath(path))

    def _place(self, model: "ir.Model", points: Collection[PointReport]) -> None:
        from embedl_deploy.export.lowering import simplify  # here: it imports half of torch.export

        wanted = {place_of(point): point for point in points}
        whole: dict[str, PointReport | None] = {}
        readers: dict[str, dict[str, Place]] = {}
        for point in self.points:
            if point.kind is PointKind.INPUT and not point.stub.startswith(f"{point.path}."):
                readers.setdefault(point.stub, {})[point.path] = place_of(point)
            elif whole.get(point.stub) is None:  # one of several calls of a module, which share it
                whole[point.stub] = wanted.get(place_of(point))
        for node in list(model.graph):
            stub = _stub_of(node)
            if node.op_type != "DequantizeLinear" or stub is None or not (stub in whole or stub in readers):
                continue
            made: dict[Any, ir.Value] = {}
            decided: PointReport | None
            for use in list(node.outputs[0].uses()):
                decided = whole.get(stub)  # an output that is quantized is so for all who read it
                if decided is None and stub in readers:
                    path = next((path for path in readers[stub] if path in _scopes(use.node)), None)
                    decided = None if path is None else wanted.get(readers[stub][path])
                if decided is None or decided in self.others:
                    use.node.replace_input_with(use.idx, self._made(model, node, decided, made))
            for index, output in enumerate(model.graph.outputs):
                decided = whole.get(stub)
                if output is node.outputs[0] and stub in whole and (decided is None or decided in self.others):
                    _make_output(model, index, self._made(model, node, decided, made))
        _drop_unread(model)
        with quiet("onnxscript", below=logging.ERROR), quiet("onnx_ir", below=logging.ERROR):
            simplify(model)

    def _made(
        self, model: "ir.Model", node: "ir.Node", decided: PointReport | None, made: "dict[Any, ir.Value]"
    ) -> "ir.Value":
        quantizer = None if decided is None else self.others[decided]
        if quantizer not in made:
            made[quantizer] = _in_another_format(model, node, quantizer)
        return made[quantizer]


def _in_another_format(model: "ir.Model", node: "ir.Node", quantizer: Any) -> "ir.Value":
    """What a DequantizeLinear gives with another quantizer than it has; ``None``: what its quantizer was given."""
    import onnx_ir as ir

    before = node.inputs[0].producer()  # type: ignore[union-attr]  # QuantizeLinear is before it
    assert before is not None
    given = before.inputs[0]
    assert given is not None
    if quantizer is None:
        return given
    scale = node.inputs[1]
    assert scale is not None
    dtype = scale.dtype or ir.DataType.FLOAT
    number = quantizer.scale.detach().abs().float()
    if dtype is ir.DataType.FLOAT16:
        number = number.clamp(min=torch.finfo(torch.float16).tiny).half()
    row = quantizer.config.precision.format
    name = f"{node.outputs[0].name}_{row.name}"
    values = {
        "scale": ir.Tensor(number.numpy()),
        "zero_point": _zero_point(quantizer, tuple(number.shape), ir.DataType[row.onnx_type]),
    }
    constants = []
    for part, tensor in values.items():
        value = ir.Value(name=f"{name}_{part}", const_value=tensor, type=ir.TensorType(tensor.dtype))
        value.shape = ir.Shape(tuple(number.shape))
        model.graph.register_initializer(value)
        constants.append(value)
    made: list[ir.Node] = []
    for old, data in ((before, given), (node, None)):
        new = ir.Node(
            old.domain,
            "QuantizeLinear" if old is before else "DequantizeLinear",  # also of one with the range of each call
            [data if data is not None else made[-1].outputs[0], *constants],
            attributes=[value for key, value in old.attributes.items() if key != "output_dtype"],
            name=f"{old.name}_{row.name}",
        )
        new.outputs[0].name = f"{name}_{old.op_type}"
        new.outputs[0].shape = old.outputs[0].shape
        new.outputs[0].type = ir.TensorType(ir.DataType[row.onnx_type]) if old is before else old.outputs[0].type
        new.metadata_props.update(old.metadata_props)
        made.append(new)
    model.graph.insert_before(before, made)
    return made[-1].outputs[0]


def _zero_point(quantizer: Any, shape: tuple[int, ...], dtype: "ir.DataType") -> "ir.TensorProtocol":
    import numpy as np
    import onnx_ir as ir

    number = 0 if quantizer.zero_point is None else int(quantizer.zero_point)
    return ir.Tensor(np.full(shape, number, dtype=dtype.numpy()), dtype=dtype)


def _make_output(model: "ir.Model", index: int, value: "ir.Value") -> None:
    """Let the model give another value, under the name of the one that it gave."""
    old = model.graph.outputs[index]
    value.name, old.name = old.name, value.name
    model.graph.outputs[index] = value


def _drop_unread(model: "ir.Model") -> None:
    """Remove quantizers, and their scales and zero points, that nobody reads."""
    outputs = set(model.graph.outputs)
    for node in reversed(list(model.graph)):
        if node.op_type in _QUANTIZERS and not any(value.uses() or value in outputs for value in node.outputs):
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
