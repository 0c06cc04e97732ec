"""Engines with open dimensions: bytes and operations are those of the usual shapes."""

import pytest
import torch
from torch import nn
from torch.export import Dim

from embedl_deploy import compile, export_onnx  # noqa: A004
from embedl_deploy.artifact import read_onnx, shapes_at
from embedl_deploy.compiling.usual_sizes import with_usual_sizes
from embedl_deploy.engine import LayerKind
from support.compilers import Acme
from support.engines import layer, tensor


class _Acme(Acme):
    """Of tensors that a compiler has named itself."""

    def build(self, onnx, options, progress):
        build = super().build(onnx, options, progress)
        layers = (
            layer("pad", LayerKind.POINTWISE, outputs=(tensor(-1, 4, -1, -1, name="padded"),), onnx_nodes=_NODES[:1]),
            layer(
                "conv",
                inputs=(tensor(-1, 4, -1, -1, name="padded"),),
                outputs=(tensor(-1, 8, -1, -1, name="a"),),
                onnx_nodes=_NODES[:2],
            ),
            layer("move", LayerKind.REFORMAT, inputs=(tensor(-1, 8, -1, -1, name="a"),), outputs=(_MOVED,)),
            layer(
                "act",
                LayerKind.POINTWISE,
                inputs=(_MOVED,),
                outputs=(tensor(-1, 8, -1, name="flat"), tensor(-1, name="scratch"), tensor(5, name="fixed")),
                onnx_nodes=_NODES[1:],
            ),
        )
        return type(build)(build.engine, layers, build.target, build.seconds, build.messages)


_NODES = ("node_conv2d", "node_relu", "node_view")
_MOVED = tensor(-1, 8, -1, -1, name="moved")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, 2, 1)

        def forward(self, x):
            return torch.relu(self.conv(x)).flatten(2)

    path = tmp_path_factory.mktemp("files") / "open.onnx"
    height, width = Dim("height", min=8, max=64), Dim("width", min=8, max=64)
    export_onnx(Net().eval(), torch.randn(2, 3, 8, 8), path, dynamic_shapes={"x": {0: Dim("b"), 2: height, 3: width}})
    return path


def test_shapes_follow_from_those_of_the_inputs(file):
    model = read_onnx(file)
    shapes = shapes_at(model, {"x": (4, 3, 32, 16)})
    assert (shapes["conv2d"], shapes[model.graph.outputs[0].name]) == ((4, 8, 16, 8), (4, 8, 128))
    assert not isinstance(model.graph.inputs[0].shape[0], int), "the model is not changed"


def test_open_tensors_are_as_large_as_the_values_that_they_hold(use, file, tmp_path):
    use(_Acme())
    shapes = {"x": ((1, 3, 8, 8), (4, 3, 32, 16), (8, 3, 64, 64))}
    report = compile(file, tmp_path / "e", shapes=shapes).report
    found = {t.name: t.elements for layer in report.layers for t in (*layer.inputs, *layer.outputs) if t.is_open}
    out = 4 * 8 * 16 * 8
    assert found == {"padded": 4 * 4 * 32 * 16, "a": out, "moved": out, "flat": out, "scratch": None}
    assert report.activation_bytes == 2 * (100 + 2 * 8192 + 4 * out + out + 1 + 5)
    assert [t.name for t in report.unknown_tensors] == ["scratch"]
    assert report.usual_shapes == "x 4×3×32×16" and report.usual_inputs[0].dtype == "float32"
    assert sum(layer.operations for layer in report.layers) == 2 * out * 27


def test_fixed_layers_are_left_as_they_are(file):
    layers = (layer("a"),)
    assert with_usual_sizes(layers, read_onnx(file), {}) == layers
