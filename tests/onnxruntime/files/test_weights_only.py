"""Weights alone in INT4 and INT8: MatMulNBits, whatever the product is written as."""

import pytest
import torch
import transformers as hf
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.artifact import read_onnx
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantization_report, quantize
from embedl_deploy_onnxruntime import WEIGHTS_4BIT, WEIGHTS_8BIT
from embedl_deploy_onnxruntime.files.stored_weights import product_of, stored_weight
from support.nets import random_input
from support.onnxruntime_optimized import optimized

X = random_input(2, 5, 96)
ROWS = random_input(7, 96)
#: Activations stay in float, instead of being rounded to 8 bits in blocks, as the runtime does by default.
EXACT = {"session.qdq_matmulnbits_accuracy_level": "0"}


def weights(precision, **settings):
    return QuantConfig(activation=None, weight=TensorQuantConfig(precision, **settings), policy="dynamic")


CONFIGS = {
    "WEIGHTS_4BIT": WEIGHTS_4BIT,
    "WEIGHTS_8BIT": WEIGHTS_8BIT,
    "INT4 in 16": weights(Precision.INT4, block_size=16),
    "INT4 in 64, longer than half a row": weights(Precision.INT4, block_size=64),
    "INT4 in rows": weights(Precision.INT4, block_size=1024),
    "INT4 by output": weights(Precision.INT4, per_channel=True),
    "INT8 in 32": weights(Precision.INT8, block_size=32),
    "INT8, one scale": weights(Precision.INT8),
}


def perceptron(*, bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(96, 48, bias=bias), nn.Tanh(), nn.Linear(48, 32, bias=bias)).eval()


FORMS = [(name, True, X) for name in CONFIGS] + [
    (name, *form) for name in list(CONFIGS)[:2] for form in [(False, X), (True, ROWS), (False, ROWS)]
]


@pytest.mark.parametrize(("name", "bias", "x"), FORMS)
def test_each_linear_is_one_kernel(tmp_path, name, bias, x):
    model = quantize(transform(perceptron(bias=bias), x, backend="onnxruntime"), config=CONFIGS[name])
    export_onnx(model, x, tmp_path / "m.onnx", integer_weights=True)
    kernels, found = optimized(tmp_path / "m.onnx", x, settings=EXACT)
    assert kernels["MatMulNBits"] == 2
    assert not {"DequantizeLinear", "MatMul", "Gemm"} & set(kernels)
    torch.testing.assert_close(found, model(x).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("x", [X, ROWS], ids=["sequences", "rows"])
@pytest.mark.parametrize("name", ["WEIGHTS_4BIT", "WEIGHTS_8BIT"])
def test_a_rectifier_behind_a_linear_does_not_keep_it_from_its_kernel(tmp_path, name, x):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU()).eval()
    model = quantize(transform(net, x, backend="onnxruntime"), config=CONFIGS[name])
    export_onnx(model, x, tmp_path / "m.onnx", integer_weights=True)
    kernels, found = optimized(tmp_path / "m.onnx", x, settings=EXACT)
    assert kernels["MatMulNBits"] == 2
    assert not {"DequantizeLinear", "MatMul", "Gemm", "FusedGemm"} & set(kernels)
    torch.testing.assert_close(found, model(x).detach(), rtol=0, atol=1e-5)


def test_a_weight_that_the_file_has_in_float_is_rounded_to_the_same(tmp_path):
    model = quantize(transform(perceptron(), X, backend="onnxruntime"), config=WEIGHTS_4BIT)
    for name, stored in (("integers", True), ("floats", False)):
        export_onnx(model, X, tmp_path / f"{name}.onnx", integer_weights=stored)
    files = [read_onnx(tmp_path / f"{name}.onnx") for name in ("integers", "floats")]
    kept = [[stored_weight(p) for node in file.graph if (p := product_of(node))] for file in files]
    for one, other in zip(*kept, strict=True):
        assert (one.integers.astype(int) == other.integers.astype(int)).all()
        assert one.integers.shape in ((96, 48), (48, 32))
        assert one.block == 32


def test_the_runtime_rounds_activations_by_default(tmp_path):
    model = quantize(transform(perceptron(), X, backend="onnxruntime"), config=WEIGHTS_8BIT)
    export_onnx(model, X, tmp_path / "m.onnx")
    wanted = model(X).detach()
    error = [(optimized(tmp_path / "m.onnx", X, settings=s)[1] - wanted).abs().max() for s in (EXACT, None)]
    assert error[0] < 1e-5 < 1e-3 < error[1] < 0.02 * wanted.abs().max()


def test_a_layer_that_is_called_twice_has_two_weights(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(96, 96)

        def forward(self, x):
            return self.layer(torch.tanh(self.layer(x)))

    torch.manual_seed(0)
    model = quantize(transform(Twice().eval(), X, backend="onnxruntime"), config=WEIGHTS_8BIT)
    export_onnx(model, X, tmp_path / "m.onnx", integer_weights=True)
    stored = [value for value in read_onnx(tmp_path / "m.onnx").graph.initializers.values() if len(value.shape) == 2]
    assert len(stored) == 2  # of one that two products read the runtime makes no MatMulNBits
    kernels, _ = optimized(tmp_path / "m.onnx", X)
    assert kernels["MatMulNBits"] == 2


def test_a_block_of_a_language_model(tmp_path):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    llama = hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, **heads, initializer_range=0.3, use_cache=False)).eval()
    tokens = torch.tensor([[3, 14, 15, 9, 26]])
    model = quantize(transform(llama, tokens, backend="onnxruntime"), config=WEIGHTS_4BIT)
    weights = [point for point in quantization_report(model).quantized if point.label == "weight"]
    assert len(weights) == 9  # the embedding, q, k, v, o, gate, up, down and the head
    export_onnx(model, tokens, tmp_path / "m.onnx", integer_weights=True)
    kernels, found = optimized(tmp_path / "m.onnx", tokens, settings=EXACT)
    assert kernels["MatMulNBits"] == 8
    with torch.no_grad():
        wanted = model(tokens)["logits"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
