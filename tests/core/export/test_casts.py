"""What forwards make in float32, in files of 16 bits: of integers, and coordinates."""

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.export.casts import FloatsFromIntegers
from embedl_deploy.quantize import quantize
from support.nets import net, random_input

PIXELS = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FORWARDS = {
    "float": lambda m, x: m.conv(x.float() / 255),
    "to": lambda m, x: m.conv(x.to(dtype=torch.float32) / 255),
    "divided": lambda m, x: m.conv(x / 255),
}


@pytest.mark.parametrize(
    ("name", "way"), [("to", "plain"), ("float", "export"), ("divided", "plain"), ("divided", "quantized")]
)
def test_an_image_in_uint8(tmp_path, name, way):
    model = net(FORWARDS[name], conv=nn.Conv2d(3, 4, 3))
    if way != "plain":
        model = transform(model, PIXELS, backend="tensorrt", trace="export" if way == "export" else "symbolic")
    if way == "quantized":
        model = quantize(model, [PIXELS], progress=False)
    written = export_onnx(model, PIXELS, tmp_path / "m.onnx", dtype=torch.float16)
    graph = onnx.load(written.path).graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert written.difference.max_rel < 2e-2


def test_what_is_computed_in_float32_on_purpose_stays(tmp_path):
    model = net(lambda m, ids: m.fc((ids.float() * m.step.float()).to(m.fc.weight.dtype)), fc=nn.Linear(4, 2))
    model.register_buffer("step", torch.ones(4))
    written = export_onnx(model, torch.arange(8).reshape(2, 4), tmp_path / "m.onnx", dtype=torch.float16)
    assert written.difference.max_rel < 1e-2


def test_other_numbers_are_left_alone():
    whole, x = torch.arange(3), torch.ones(3)
    with FloatsFromIntegers(torch.float16):
        found = (whole.float(), whole.to(torch.float32), whole / 2, whole.double(), whole * x, x.float(), whole + 1)
    kinds = [torch.float16, torch.float16, torch.float16, torch.float64, torch.float32, torch.float32, torch.int64]
    assert [value.dtype for value in found] == kinds


def with_coordinates(m, x):
    columns = torch.linspace(-1, 1, x.shape[-1]).expand(x.shape[0], 1, x.shape[2], -1)
    return torch.relu(m.conv(torch.cat([x, columns], 1)))


@pytest.mark.parametrize(("trace", "dynamic_batch"), [("symbolic", False), ("export", True)])
def test_coordinates_in_float32_are_cast_in_front_of_a_product_and_of_its_quantizer(tmp_path, trace, dynamic_batch):
    model, x = net(with_coordinates, conv=nn.Conv2d(4, 4, 3)), random_input(2, 3, 8, 8)
    quantized = quantize(transform(model, x, backend="tensorrt", trace=trace), [x], progress=False)
    settings = {"dtype": torch.float16, "dynamic_batch": dynamic_batch}
    written = export_onnx(quantized, x, tmp_path / "m.onnx", **settings)
    graph = onnx.load(written.path).graph
    makers = {name: node for node in graph.node for name in node.output}
    walk, node = [], next(node for node in graph.node if node.op_type == "Conv")
    while node.op_type != "Concat":
        node = makers[node.input[0]]
        walk.append(node.op_type)
    assert walk == ["DequantizeLinear", "QuantizeLinear", "Cast", "Concat"]
    assert written.difference.max_rel < 2e-2
