"""A recipe and a state_dict restore a quantized model from the original one."""

import json

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.quantize import (
    Precision,
    QuantConfig,
    QuantizationRecipe,
    TensorQuantConfig,
    freeze,
    insert_qdq,
    quantization_recipe,
    quantization_report,
    quantize,
)
from support.nets import random_input

IMAGES, SEQUENCES = random_input(4, 3, 12, 12), random_input(4, 6, 16)
FORMATS = {
    "int8": QuantConfig(),
    "int4, learned": QuantConfig(weight=TensorQuantConfig(Precision.INT4, per_channel=True, learnable=True)),
    "fp8": QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8)),
    "asymmetric": QuantConfig(activation=TensorQuantConfig(symmetric=False)),
}
METHODS = {
    "plain": {},
    "corrected": {"bias_correction": True, "equalization": True},
    "learned": {"learned_rounding": True, "smooth_quant": 0.5},
}


def convolutions():
    blocks = (nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False))
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5, bias=False)).eval()


def attention():
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True).eval()


def fresh(make, x, seed=0):
    torch.manual_seed(seed)
    return transform(make(), (x,), backend="tensorrt")


CASES = [
    *((formats, "plain") for formats in FORMATS),
    *(("int8", methods) for methods in METHODS if methods != "plain"),
]


@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
@pytest.mark.parametrize(("formats", "methods"), CASES)
@pytest.mark.parametrize(("make", "x"), [(convolutions, IMAGES), (attention, SEQUENCES)], ids=["conv", "attention"])
def test_round_trip(make, x, formats, methods, frozen):
    quantized = quantize(fresh(make, x), [x], FORMATS[formats], progress=False, **METHODS[methods]).eval()
    quantized = freeze(quantized) if frozen else quantized
    text = quantization_recipe(quantized).to_json()
    restored = QuantizationRecipe.from_json(text).rebuild(fresh(make, x, seed=1)).eval()
    restored.load_state_dict(quantized.state_dict())
    assert torch.equal(restored(x), quantized(x))
    assert quantization_recipe(restored).to_json() == text
    assert str(quantization_report(restored)) == str(quantization_report(quantized))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("methods", ["corrected", "learned"])
@pytest.mark.parametrize(("make", "x"), [(convolutions, IMAGES), (attention, SEQUENCES)], ids=["conv", "attention"])
def test_of_a_model_in_another_type(make, x, methods, dtype):
    """What corrections add, biases and scales, is of the model's type."""
    x = x.to(dtype)
    quantized = quantize(fresh(lambda: make().to(dtype), x), [x], progress=False, **METHODS[methods]).eval()
    text = quantization_recipe(quantized).to_json()
    restored = QuantizationRecipe.from_json(text).rebuild(fresh(lambda: make().to(dtype), x, seed=1)).eval()
    restored.load_state_dict(quantized.state_dict())
    assert torch.equal(restored(x), quantized(x))
    for name, tensor in quantized.state_dict().items():
        assert restored.state_dict()[name].dtype == tensor.dtype, name


class Mixed(nn.Module):
    """A part in float64 behind one in float32."""

    def __init__(self):
        super().__init__()
        self.first, self.wide = nn.Linear(16, 16, bias=False), nn.Linear(16, 4, bias=False, dtype=torch.float64)

    def forward(self, x):
        return self.wide(self.first(x).relu().double())


def test_a_bias_that_corrections_add_is_of_its_layers_type():
    quantized = freeze(quantize(fresh(Mixed, SEQUENCES), [SEQUENCES], bias_correction=True, progress=False))
    restored = quantization_recipe(quantized).rebuild(fresh(Mixed, SEQUENCES, seed=1))
    restored.load_state_dict(quantized.state_dict())
    assert torch.equal(restored(SEQUENCES), quantized(SEQUENCES))
    types = {name: tensor.dtype for name, tensor in restored.state_dict().items() if name.endswith("linear.bias")}
    assert types == {"first.linear.bias": torch.float32, "wide.linear.bias": torch.float64}


def test_people_can_read_it():
    quantized = quantize(
        fresh(convolutions, IMAGES), [IMAGES], QuantConfig(skip={nn.AdaptiveAvgPool2d}), progress=False
    )
    data = json.loads(quantization_recipe(quantized).to_json())
    assert (data["format"], data["version"]) == ("embedl-deploy/quantization", 1)
    assert (data["backend"], data["policy"], data["frozen"]) == ("tensorrt", "tensorrt's 'all'", False)
    first = data["points"][0]
    assert first["config"] == {"precision": "int8"} and first["rule"] == "configuration"
    assert {point["rule"] for point in data["points"] if point["config"] is None} == {"skip: AdaptiveAvgPool2d"}


def test_it_is_made_before_calibration_too():
    result = fresh(convolutions, IMAGES)
    uncalibrated = insert_qdq(result.model, result.matches)
    calibrated = quantize(result, [IMAGES], progress=False)
    assert quantization_recipe(uncalibrated) == quantization_recipe(calibrated)


def test_the_model_it_is_given_is_not_changed():
    quantized = quantize(fresh(convolutions, IMAGES), [IMAGES], bias_correction=True, progress=False)
    result = fresh(convolutions, IMAGES, seed=1)
    before, graph = list(result.model.state_dict()), str(result.model.graph)
    quantization_recipe(quantized).rebuild(result)
    assert list(result.model.state_dict()) == before and str(result.model.graph) == graph


@pytest.fixture(scope="module")
def recipe():
    return quantization_recipe(quantize(fresh(convolutions, IMAGES), [IMAGES], progress=False))


class TestWhatIsWrong:
    def test_another_model(self, recipe):
        with pytest.raises(QuantizationError, match="which the model does not have"):
            recipe.rebuild(fresh(attention, SEQUENCES))

    def test_no_model(self, recipe):
        with pytest.raises(InputError, match=r"model is .*; expected a GraphModule"):
            recipe.rebuild(convolutions())

    def test_a_model_without_quantizers(self):
        with pytest.raises(QuantizationError, match="no quantization report"):
            quantization_recipe(fresh(convolutions, IMAGES).model)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "not valid JSON"),
            ("[]", "not a recipe"),
            ('{"format": "embedl-deploy/plan", "version": 1}', "not a recipe"),
            ('{"format": "embedl-deploy/quantization", "version": 9}', "version 9; this release reads version 1"),
            ('{"format": "embedl-deploy/quantization", "version": 1}', "missing or unknown entries: backend, correc"),
        ],
    )
    def test_text(self, text, message):
        with pytest.raises(QuantizationError, match=message):
            QuantizationRecipe.from_json(text)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"kind": "nowhere"}, "broken point"),
            ({"config": {"precision": "int8", "color": 3}}, "unknown setting"),
            ({"path": "elsewhere"}, "has a point at 'elsewhere', but node"),
            ({"node": "nobody"}, "names node 'nobody'"),
        ],
    )
    def test_a_point(self, recipe, change, message):
        data = json.loads(recipe.to_json())
        data["points"][0].update(change)
        with pytest.raises(QuantizationError, match=message):
            QuantizationRecipe.from_json(json.dumps(data)).rebuild(fresh(convolutions, IMAGES))

    @pytest.mark.parametrize("key", ["points", "scaled", "folded", "corrections"])
    def test_a_list(self, recipe, key):
        data = json.loads(recipe.to_json())
        data[key] = "all"
        with pytest.raises(QuantizationError, match="expected a list"):
            QuantizationRecipe.from_json(json.dumps(data))

    @pytest.mark.parametrize("key", ["tensors", "shared"])
    def test_names(self, recipe, key):
        data = json.loads(recipe.to_json())
        data[key] = {"stem": 3}
        with pytest.raises(QuantizationError, match="expected texts by name"):
            QuantizationRecipe.from_json(json.dumps(data))
