"""Capture for export decomposes node by node what it knows, and leaves the rest to the exporter."""

from collections import Counter

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.export.exportable import ExportableForms
from embedl_deploy.export.lowering import captured
from embedl_deploy.modules import PaddedConv2d
from embedl_deploy.quantize import quantize

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TABLE = torch.export.default_decompositions()


class Overwriting(nn.Module):
    """Its sum is of the overwritten value."""

    def __init__(self, between):
        super().__init__()
        self.conv, self.between = nn.Conv2d(3, 3, 3, padding=1), between

    def forward(self, x):
        y = self.conv(x)
        z = self.between(y)
        return nn.functional.relu_(z) + y


class View(nn.Module):
    """The same values, seen through another tensor."""

    def forward(self, x):
        return x.view(x.shape)


def layers(*more):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), *more).eval()


def table():
    """What the exporter asks for: it translates these itself."""
    aten = torch.ops.aten
    kept = {aten.conv2d.default, aten.mean.dim, aten.flatten.using_ints, aten.linear.default}
    kept |= {aten.masked_fill.Scalar, aten.arange.default}
    return {target: how for target, how in TABLE.items() if target not in kept}


def decomposed(model):
    with torch.no_grad(), ExportableForms(23):
        program = captured(model, (X,), {})
    return program, program.run_decompositions(table())


def targets(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def test_known_operators_are_replaced_in_place():
    model = layers(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    program, result = decomposed(model)
    assert result is program
    names = ("conv2d.default", "relu.default", "mean.dim", "flatten.using_ints")
    assert targets(result) == [f"aten.{name}" for name in names]
    torch.testing.assert_close(result.module()(X), model(X))


class OfAText(nn.Module):
    """What transformers do around their layers: conversions that do nothing, masks, dropout."""

    def __init__(self):
        super().__init__()
        self.embedding, self.dropout, self.fc = nn.Embedding(9, 4), nn.Dropout(0.5), nn.Linear(4, 4)

    def forward(self, ids):
        kept = (ids > 2) | (ids == 0) & (ids < 9)
        x = self.dropout(self.embedding(ids)).to(torch.float32).to("cpu")
        scores = self.fc(x).masked_fill(~kept[..., None], -1e4).float()
        return scores + kept[..., None].to(torch.float32), kept.any(-1), torch.arange(3) * ids.to(torch.int32)


def test_a_text_model_is_not_traced_again():
    ids = torch.tensor([[0, 1, 5]])
    model = OfAText().eval()
    with torch.no_grad():
        program = captured(model, (ids,), {})
        result = program.run_decompositions(table())
    assert result is program
    gone = {"aten.to", "aten.__or__", "aten.__and__", "aten.dropout", "aten._assert_tensor_metadata"}
    assert not gone & {name.rpartition(".")[0] for name in targets(result)}
    for found, wanted in zip(result.module()(ids), model(ids), strict=True):
        assert found.dtype is wanted.dtype
        torch.testing.assert_close(found, wanted)


def test_dropout_in_training_is_none_of_that():
    with torch.no_grad():
        program = captured(nn.Dropout(0.5).train(), (X,), {})
        assert program.run_decompositions(TABLE) is not program


def test_what_is_overwritten_and_used_again_is_the_new_value():
    model = Overwriting(nn.Identity())
    program, result = decomposed(model)
    assert result is program
    torch.testing.assert_close(result.module()(X), model(X))


@pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning")  # torch's own, in run_decompositions
@pytest.mark.parametrize(
    "model",
    [layers(nn.AdaptiveAvgPool2d(2)), layers(nn.BatchNorm2d(4)), Overwriting(View())],
    ids=["pooling to 2x2", "batch norm", "a view is overwritten"],
)
def test_what_takes_more_is_traced_again(model):
    program, result = decomposed(model.eval())
    assert result is not program
    torch.testing.assert_close(result.module()(X), model(X))


def operators(model, path):
    quantized = quantize(transform(model.eval(), X, backend="tensorrt"), [X], progress=False)
    export_onnx(quantized, X, path)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


class TestMerged:
    def test_the_padding_of_a_padded_convolution(self, tmp_path):
        padded = PaddedConv2d.of(nn.Conv2d(3, 4, 3, stride=2), (0, 1, 0, 1))
        found = operators(nn.Sequential(padded), tmp_path / "padded.onnx")
        assert found == {"Conv": 1, "QuantizeLinear": 2, "DequantizeLinear": 2}

    def test_a_batch_norm_that_no_fusion_has_taken(self, tmp_path):
        layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2), nn.BatchNorm2d(4))
        found = operators(layers, tmp_path / "norm.onnx")
        assert found["ConvTranspose"] == 1 and "BatchNormalization" not in found

    def test_layouts(self, tmp_path):
        class Turned(nn.Module):
            def forward(self, x):
                return x.permute(0, 2, 3, 1).permute(0, 3, 1, 2).reshape(1, -1, 36).reshape(1, -1)

        found = operators(nn.Sequential(nn.Conv2d(3, 4, 3), Turned()), tmp_path / "turned.onnx")
        assert found["Reshape"] == 1 and found["Transpose"] == 0
