"""A quantized file whose outputs rounding to a grid makes another, and what is still compared then."""

import functools

import onnx_ir as ir
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import ExportError
from embedl_deploy.export import program
from embedl_deploy.export.off_the_grid import run_without_quantizers, without_quantizers
from embedl_deploy.quantize import Quantizer, freeze, quantize
from support.nets import random_input

ROWS = random_input(16, 32)


class Chaotic(nn.Module):
    """Each layer makes a difference larger, until it is as large as the numbers."""

    def __init__(self, layers: int = 12) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(layers))
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=2.5 / 32**0.5)

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


@functools.cache
def quantized():
    torch.manual_seed(0)
    model = quantize(transform(Chaotic().eval(), ROWS, backend="tensorrt"), [ROWS], progress=False)
    for part in model.modules():
        if isinstance(part, Quantizer) and not part.is_weight:
            part.scale = part.scale * 16  # few values are near an edge, and those fall far
    return model


def export(folder, **settings):
    return export_onnx(quantized(), ROWS, folder / "m.onnx", dtype=torch.float16, **settings)


def multiply(value, factor):
    numbers = value.const_value.numpy()
    value.const_value = ir.tensor((numbers * factor).astype(numbers.dtype), name=value.name)


def test_a_right_file_is_written_and_the_reason_told(tmp_path):
    written = export(tmp_path)
    assert written.sqnr < 6, "what this is about: the outputs themselves say nothing"
    assert written.notes[-1].startswith("Values near the edge of a quantization step may be rounded to either side")
    assert written.notes[-1].endswith("all its 12 activation quantizers have the model's scales.")


def test_a_spoiled_weight_is_refused(tmp_path, monkeypatch):
    translated = program.translated

    def spoiled(*args, **settings):
        made, replaced = translated(*args, **settings)
        weights = (v for name, v in made.model.graph.initializers.items() if "weight" in name and len(v.shape) == 2)
        multiply(next(weights), 1.1)
        return made, replaced

    monkeypatch.setattr("embedl_deploy.export.onnx.translated", spoiled)
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        export(tmp_path)


def another_scale(model):
    node = next(node for node in model.graph if node.op_type == "QuantizeLinear" and "scale" in node.inputs[1].name)
    multiply(node.inputs[1], 1.05)


def scales_of_two(model):
    """Swapped: what the file has is what the model has, in other places."""
    quantizing = [node for node in model.graph if node.op_type == "QuantizeLinear" and "_quant" in node.inputs[1].name]
    first, second = [node for node in quantizing if "weight" not in node.inputs[1].name][3:5]
    first, second = first.inputs[1], second.inputs[1]
    assert first.const_value.numpy() != second.const_value.numpy()
    first.const_value, second.const_value = second.const_value, first.const_value


def another_format(model):
    nodes = (node for node in model.graph if node.op_type == "QuantizeLinear")
    zero = next(node.inputs[2] for node in nodes if node.inputs[2].shape == ())
    zero.const_value = ir.tensor(zero.const_value.numpy().astype("uint8"), name=zero.name)
    zero.type = ir.TensorType(ir.DataType.UINT8)


def no_quantizer(model):
    dequantize = next(n for n in model.graph if n.op_type == "DequantizeLinear" and n.inputs[0].producer())
    before = dequantize.inputs[0].producer().inputs[0]
    ir.convenience.replace_all_uses_with(dequantize.outputs[0], before, replace_graph_outputs=True)
    ir.passes.common.RemoveUnusedNodesPass()(model)


@pytest.mark.parametrize("spoil", [another_scale, scales_of_two, another_format, no_quantizer])
def test_other_grids_than_the_models_are_no_agreement(tmp_path, spoil):
    path = tmp_path / "m.onnx"
    export_onnx(quantized(), ROWS, path, tolerance=None)
    model = freeze(quantized(), weights=False)
    assert run_without_quantizers(path, model, [ROWS])[1] == 12
    spoiled = ir.load(path)
    spoil(spoiled)
    ir.save(spoiled, path)
    assert run_without_quantizers(path, model, [ROWS]) == (None, 0)


def test_a_tolerance_that_was_given_is_kept(tmp_path):
    with pytest.raises(ExportError, match=r"accepted: 0\.05\. Nothing was written"):
        export(tmp_path, tolerance=0.05)


def test_every_size_of_an_open_batch_is_compared_so(tmp_path):
    assert export(tmp_path, dynamic_batch=True).notes


def test_without_quantizers_activations_pass_and_weights_are_rounded(tmp_path):
    model = freeze(quantized(), weights=False)
    passing = without_quantizers(model)
    assert all(part.is_weight for part in passing.modules() if isinstance(part, Quantizer))
    x = ROWS
    for part in (part for part in model.modules() if isinstance(part, nn.Linear)):
        step = part.weight.abs().amax(1, keepdim=True) / 127
        x = torch.tanh(nn.functional.linear(x, (part.weight / step).round() * step, part.bias))
    torch.testing.assert_close(passing(ROWS), x, rtol=0, atol=1e-4)
    path = tmp_path / "m.onnx"
    export_onnx(quantized(), ROWS, path, tolerance=None)
    (found,), count = run_without_quantizers(path, model, [ROWS])
    assert count == 12
    torch.testing.assert_close(found, x.detach(), rtol=0, atol=1e-3)


def test_a_file_without_quantizers_has_nothing_to_leave_out(tmp_path):
    model = nn.Linear(4, 4).eval()
    export_onnx(model, ROWS[:, :4], tmp_path / "m.onnx", tolerance=None)
    assert run_without_quantizers(tmp_path / "m.onnx", model, [ROWS[:, :4]]) == (None, 0)
