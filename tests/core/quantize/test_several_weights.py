"""A fused module with two weights goes the whole way, as one with a single weight does."""

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.backend import PointKind
from embedl_deploy.errors import QuantizationError
from embedl_deploy.export.prepare import reasons_in_float
from embedl_deploy.quantize import (
    IntegerWeight,
    ModulesToSkip,
    Precision,
    QuantConfig,
    QuantizationRecipe,
    Quantizer,
    TensorQuantConfig,
    freeze,
    insert_qdq,
    quantization_recipe,
    quantization_report,
    quantize,
)
from support.squeeze_excite import ConvActPattern, NestedSE, NestedSEPattern, PlainSE, PlainSEPattern, SqueezeExcite

KINDS = {
    "nested": (NestedSEPattern, False),
    "with batch norm": (NestedSEPattern, True),
    "plain": (PlainSEPattern, False),
}
LABELS = ["input 0", "input 1", "reduce.weight", "expand.weight", "pooled_quant", "reduced_quant"]


@pytest.fixture(scope="module")
def x():
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=KINDS)
def result(request, x):
    pattern, norm = KINDS[request.param]
    torch.manual_seed(0)
    model = SqueezeExcite(norm=norm)
    for _ in range(30):
        model.train()(x)  # statistics of batch norm
    return transform(model.eval(), x, patterns=[pattern(), ConvActPattern()])


@pytest.fixture(scope="module")
def quantized(result, x):
    return quantize(result, [x], progress=False)


def weights(model):
    """The quantizers of a model's weights, by path."""
    parts = model.named_modules()
    return {path: part for path, part in parts if isinstance(part, Quantizer) and part.is_weight}


def test_each_weight_is_a_point(quantized):
    report = quantization_report(quantized)
    points = [point for point in report.points if point.path == "pool"]
    assert [point.label for point in points] == LABELS and all(point.quantized for point in points)
    assert [p.label for p in points if p.kind is PointKind.WEIGHT] == ["reduce.weight", "expand.weight"]
    assert "(3 weights)" in str(report) and report.uncovered == ()
    scales = [quantizer.scale for quantizer in weights(quantized).values()]
    assert [scale.numel() for scale in scales] == [8, 4, 8]


def test_the_numbers_are_those_of_rounded_weights(result, quantized, x):
    """Worked out from the original modules, with every rounding by hand."""

    def rounded(value, scale):
        scale = scale.reshape(-1, *(1,) * (value.dim() - 1)) if scale.dim() else scale
        return (value / scale).round().clamp(-128, 127) * scale

    points = {(point.path, point.label): point.stub for point in quantization_report(quantized).points}
    scale = {point: quantized.get_submodule(stub).quantizer.scale for point, stub in points.items()}
    fused = result.model.get_submodule("pool")
    nested = hasattr(fused.reduce, "conv")
    reduce, expand = (fused.reduce.conv, fused.expand.conv) if nested else (fused.reduce, fused.expand)
    factor, shift = torch.ones(4), reduce.bias
    if nested and fused.reduce.bn is not None:
        bn = fused.reduce.bn
        factor = bn.weight / (bn.running_var + bn.eps).sqrt()
        shift = (reduce.bias - bn.running_mean) * factor + bn.bias
    with torch.no_grad():
        y = quantized.get_submodule("stem.0")(rounded(x, scale["stem.0", "input 0"]))
        y = rounded(y, scale["pool", "input 0"])
        pooled = rounded(y.mean((2, 3), keepdim=True), scale["pool", "pooled_quant"])
        weight = rounded(reduce.weight * factor.reshape(-1, 1, 1, 1), scale["pool", "reduce.weight"])
        reduced = rounded(nn.functional.conv2d(pooled, weight, shift).relu(), scale["pool", "reduced_quant"])
        gate = nn.functional.conv2d(
            reduced, rounded(expand.weight, scale["pool", "expand.weight"]), expand.bias
        ).sigmoid()
        torch.testing.assert_close(quantized(x), y * gate, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("correction", ["bias_correction", "learned_rounding"])
def test_recipe_and_state_give_the_same_bits(result, x, correction):
    corrected = quantize(result, [x], progress=False, **{correction: True})
    for model in (corrected, freeze(corrected)):
        again = QuantizationRecipe.from_json(quantization_recipe(model).to_json()).rebuild(result)
        again.load_state_dict(model.state_dict())
        with torch.no_grad():
            assert torch.equal(again(x), model(x))


def test_equalization_leaves_it_alone(result, x):
    done = quantization_report(quantize(result, [x], equalization=True, progress=False)).corrections
    name = type(result.model.get_submodule("pool")).__name__
    outcome = f"declined: only {name} knows which of its weights the channels meet"
    assert [(c.where, c.outcome) for c in done] == [("stem.0 → pool", outcome)]


@pytest.mark.parametrize("correction", ["bias_correction", "learned_rounding"])
def test_each_weight_is_corrected(result, correction):
    """On enough samples, and with enough to correct, that it helps on those held back."""
    x = torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    config = QuantConfig(activation=None, weight=TensorQuantConfig(Precision.INT4, per_channel=True))
    plain, corrected = (quantize(result, [x], config, progress=False, **asked) for asked in ({}, {correction: True}))
    done = quantization_report(corrected).corrections
    assert [(c.where, c.outcome) for c in done[:-1]] == [
        ("stem.0", "corrected"),
        ("pool reduce.weight", "corrected"),
        ("pool expand.weight", "corrected"),
    ]
    with torch.no_grad():
        wanted = result.model(x)
        before, after = ((model(x) - wanted).mean((0, 2, 3)).abs().sum() for model in (plain, corrected))
    assert after < before


def test_frozen_weights_are_integers(quantized, x):
    frozen = freeze(quantized)
    stored = {path for path, part in frozen.named_modules() if isinstance(part, IntegerWeight)}
    assert stored == set(weights(quantized))
    assert not [name for name, parameter in frozen.named_parameters() if parameter.dim() > 1]
    with torch.no_grad():
        torch.testing.assert_close(frozen(x), quantized(x), rtol=1e-5, atol=1e-6)


def test_both_weights_are_integers_in_the_file(quantized, x, tmp_path):
    exported = export_onnx(quantized, x, tmp_path / "se.onnx", integer_weights=True)
    assert exported.difference.max_abs < 1e-5
    graph = onnx.load(tmp_path / "se.onnx").graph
    numbers = {i.name: i.data_type for i in graph.initializer}
    dequantized = {
        node.output[0]: numbers.get(node.input[0]) for node in graph.node if node.op_type == "DequantizeLinear"
    }
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert [dequantized[node.input[1]] for node in convolutions] == [onnx.TensorProto.INT8] * 3
    assert all(node.input[0] in dequantized for node in convolutions)


def test_training_reaches_each_weight(result, x):
    model = quantize(result, [x], progress=False).train()
    model(x).square().sum().backward()
    assert all(
        p.grad is not None and bool(p.grad.abs().sum() > 0) for n, p in model.named_parameters() if "weight" in n
    )


@pytest.mark.parametrize("selector", ["predicate", "path", "instance"])
def test_one_weight_may_stay_in_float(result, x, selector):
    selectors = {
        "predicate": lambda point: point.label == "expand.weight",
        "path": "pool.expand*",
        "instance": result.model.get_submodule("pool").expand,
    }
    config = QuantConfig(skip=ModulesToSkip(weight=[selectors[selector]]))
    model = quantize(result, [x], config, progress=False)
    report = quantization_report(model)
    assert [p.label for p in report.not_quantized] == ["expand.weight"] and report.uncovered == ()
    reasons = reasons_in_float(model)
    assert {path.rpartition(".conv")[0] or path for path in reasons} == {"pool.expand"}
    frozen = freeze(model)
    assert [p.dim() for n, p in frozen.named_parameters() if n.endswith("weight")] == [4]
    with torch.no_grad():
        torch.testing.assert_close(frozen(x), model(x), rtol=1e-5, atol=1e-6)


class Hidden(NestedSE):
    """Its second convolution has no quantization point."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.expand = parts[4]


class HiddenPattern(NestedSEPattern):
    graft = Hidden


def se(pattern, x):
    torch.manual_seed(0)
    return transform(SqueezeExcite().eval(), x, patterns=[pattern(), ConvActPattern()])


def test_a_weight_without_a_place_is_listed_by_its_path(x):
    result = se(HiddenPattern, x)
    report = quantization_report(quantize(result, [x], progress=False))
    assert report.uncovered == (("pool.expand", "Conv2d", "the module declares no quantization point for its weight"),)
    text = str(report)
    assert "pool.expand (Conv2d): the module declares no quantization point" in text and "(2 weights)" in text
    result.model.get_submodule("pool").why_not_quantized = "the gate is computed in float"
    report = quantization_report(quantize(result, [x], progress=False))
    assert report.uncovered == (("pool.expand", "Conv2d", "the gate is computed in float"),)
    assert len([point for point in report.quantized if point.kind is PointKind.WEIGHT]) == 2


class NoStubBetween(NestedSE):
    """What is between its convolutions has no quantization point."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.reduced_quant = nn.Identity()


class Raw(NestedSE):
    """Multiplies by a parameter of its own."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.table = nn.Parameter(torch.eye(8))

    def forward(self, x, y):
        return torch.einsum("bchw,dc->bdhw", super().forward(x, y), self.table)


@pytest.mark.parametrize(
    ("module", "listed"),
    [
        (NoStubBetween, ("pool.expand.conv", "Conv2d", "no quantization point for its input")),
        (Raw, ("pool.table", "einsum", "no quantization point for its weight")),
    ],
)
def test_products_in_forward_are_looked_at(module, listed, x):
    result = se(type("AnyPattern", (NestedSEPattern,), {"graft": module}), x)
    uncovered = quantization_report(insert_qdq(result.model, result.matches)).uncovered
    assert [entry[:2] for entry in uncovered if listed[2] in entry[2]] == [listed[:2]]


def test_a_module_that_opts_out_has_no_weights(x):
    result = se(NestedSEPattern, x)
    module = result.model.get_submodule("pool")
    module.input_quant_stubs, module.why_not_quantized = {}, "no kernel"
    report = quantization_report(quantize(result, [x], progress=False))
    assert [(p.path, p.label) for p in report.quantized] == [("stem.0", "input 0"), ("stem.0", "weight")]
    assert [entry[::2] for entry in report.uncovered] == [
        ("pool.reduce.conv", "no kernel"),
        ("pool.expand.conv", "no kernel"),
    ]


class Ignoring(NestedSE):
    def forward(self, x, y):
        return y * self.gate(self.expand.conv(self.reduced_quant(self.reduce(self.pooled_quant(self.pool(x))))))


class Dropping(NestedSE):
    def forward(self, x, y):
        self.expand.weight_fake_quant(self.expand.conv.weight).flatten()  # an operation, and its result goes nowhere
        return y * self.gate(self.expand.conv(self.reduced_quant(self.reduce(self.pooled_quant(self.pool(x))))))


class DroppingValue(NestedSE):
    def forward(self, x, y):
        reduced = self.reduce(self.pooled_quant(self.pool(x)))
        self.reduced_quant(reduced)
        return y * self.gate(self.expand(reduced))


class Swapped(PlainSE):
    def forward(self, x, y):
        first, second = self.expand_weight_fake_quant, self.reduce_weight_fake_quant
        reduced = self.act(self._convolved(self.reduce, first, self.pooled_quant(self.pool(x))))
        return y * self.gate(self._convolved(self.expand, second, self.reduced_quant(reduced)))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (
            Ignoring,
            r"Ignoring at 'pool', placed by pattern 'IgnoringPattern', was run, but its forward never called "
            r"'expand.weight_fake_quant', the stub with the quantizer of a weight",
        ),
        (
            Dropping,
            r"Dropping at 'pool', placed by pattern 'DroppingPattern', calls 'expand.weight_fake_quant', the stub with "
            r"the quantizer of a weight, but does not use the result: the weight would stay in float",
        ),
        (
            DroppingValue,
            r"DroppingValue at 'pool', .* calls 'reduced_quant', the stub with the quantizer of a value, but does not",
        ),
        (
            Swapped,
            r"Swapped at 'pool', placed by pattern 'SwappedPattern', calls 'reduce_weight_fake_quant' with a tensor of "
            r"shape \(8, 4, 1, 1\), but by its name the stub is for the weight of 'reduce', of shape \(4, 8",
        ),
    ],
)
def test_a_forward_that_does_not_use_its_places_is_told_as_that(module, text, x):
    pattern = type(f"{module.__name__}Pattern", (NestedSEPattern,), {"graft": module})
    with pytest.raises(QuantizationError, match=text):
        quantize(se(pattern, x), [x], progress=False)
