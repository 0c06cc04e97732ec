"""Weights that are computed from parameters alone are the weights of modules."""

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from embedl_deploy import export_onnx, transform
from embedl_deploy.conversions import ComputedWeightPattern
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import QuantConfig, freeze, quantization_report, quantize
from support.agreement import applied, check_rewrite, reasons
from support.nets import net, random_input

X = random_input(3, 8)
MAPS = random_input(2, 4, 6, 6)
TRACES = pytest.mark.parametrize("trace", ["symbolic", "export"])


class Standardized(nn.Conv2d):
    """As in timm: batch norm of the weight, one row for each output."""

    def forward(self, x):
        rows = self.weight.reshape(1, self.out_channels, -1)
        gain = torch.full((self.out_channels,), 0.5)
        weight = F.batch_norm(rows, None, None, gain, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def standardized(weight):
    """By the formula, in float64."""
    rows = weight.detach().double().flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    return (0.5 * centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()).reshape(weight.shape)


def block():
    torch.manual_seed(0)
    return nn.Sequential(Standardized(4, 6, 3, padding=1), nn.ReLU(), Standardized(6, 4, 1)).eval()


def sliced():
    return net(
        lambda m, x: F.linear(x, m.w[:8], m.b[:8]) + F.linear(x, m.w[8:16]) + x @ m.w[16:],
        w=nn.Parameter(torch.empty(24, 8)),
        b=nn.Parameter(torch.empty(24)),
    )


def converted(model, x, trace="symbolic"):
    result = transform(model, x, patterns=[ComputedWeightPattern()], trace=trace)
    torch.testing.assert_close(result.model(x), model(x), rtol=0, atol=0)
    return result


@TRACES
def test_a_standardized_convolution_is_one_under_its_own_path(trace):
    model = block()
    result = converted(model, MAPS, trace)
    assert [str(node.target) for node in result.model.graph.nodes if node.op == "call_module"][-3:] == ["0", "1", "2"]
    for path in ("0", "2"):
        conv = result.model.get_submodule(path)
        assert isinstance(conv, nn.Conv2d)
        torch.testing.assert_close(conv.weight.detach().double(), standardized(model.get_submodule(path).weight))
    assert sorted(p.numel() for p in result.model.parameters()) == sorted(p.numel() for p in model.parameters())


@TRACES
def test_it_is_trained_as_it_was(trace):
    model = block()
    result = converted(model, MAPS, trace)
    for each in (model, result.model):
        each(MAPS).square().sum().backward()
    gradients = sorted((p.grad.flatten().tolist() for p in model.parameters()), key=len)
    assert sorted((p.grad.flatten().tolist() for p in result.model.parameters()), key=len) == gradients


@TRACES
def test_what_is_quantized_is_the_computed_weight_and_it_is_a_constant_in_files(trace, tmp_path):
    model = block()
    result = transform(model, MAPS, backend="tensorrt", trace=trace)
    quantized = quantize(result, [MAPS], QuantConfig(policy="all"), progress=False)
    assert not quantization_report(quantized).uncovered
    for path in ("0", "2"):
        quantizer = quantized.get_submodule(f"{path}.weight_fake_quant.quantizer")
        wanted = standardized(model.get_submodule(path).weight).abs().flatten(1).amax(1) / 127
        torch.testing.assert_close(quantizer.scale.double(), wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close(freeze(quantized)(MAPS), quantized(MAPS))
    for each in (result, quantized):
        path = export_onnx(each, MAPS, tmp_path / "m.onnx", tolerance=None).path
        kinds = {node.op_type for node in onnx.load(path).graph.node}
        assert kinds <= {"Conv", "Relu", "QuantizeLinear", "DequantizeLinear"}
    (got,) = run_onnx(export_onnx(result, MAPS, tmp_path / "m.onnx").path, MAPS)
    torch.testing.assert_close(got, model(MAPS).detach(), rtol=1e-4, atol=1e-5)


@TRACES
def test_parts_of_one_parameter_share_it(trace):
    model = sliced()
    result = converted(model, X, trace)
    assert {entry["pattern"] for entry in result.report["applied"]} == {"ComputedWeightPattern"}
    assert result.report["applied_count"] == 3
    assert sorted(p.numel() for p in result.model.parameters()) == [24, 192]
    linears = [module for module in result.model.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == 3 and len({id(each.parametrizations.weight.original) for each in linears}) == 1


@TRACES
def test_a_matrix_that_nothing_else_reads_is_the_weight_seen_the_other_way(trace):
    model = net(
        lambda m, x: torch.addmm(m.b, x, m.w), w=nn.Parameter(torch.empty(8, 6)), b=nn.Parameter(torch.empty(6))
    )
    result = converted(model, X, trace)
    (linear,) = (module for module in result.model.modules() if isinstance(module, nn.Linear))
    assert not parametrize.is_parametrized(linear)
    assert (
        isinstance(linear.weight, nn.Parameter) and linear.weight.shape == (6, 8) and linear.weight.stride() == (1, 6)
    )


@TRACES
@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda m, x: torch.inner(x, m.w), (6, 8)),
        (lambda m, x: torch.tensordot(x, m.w, 1), (8, 6)),
        (lambda m, x: torch.tensordot(x, m.w, dims=([1], [1])), (6, 8)),
        (lambda m, x: torch.einsum("nd,de->ne", x, m.w), (8, 6)),
        (lambda m, x: torch.einsum("n d, e d -> n e", x, m.w), (6, 8)),
    ],
)
def test_products_by_axes_with_a_matrix_are_linear(function, shape, trace):
    model = net(function, w=nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
    result = transform(model, X, patterns=[ComputedWeightPattern()], trace=trace)
    (linear,) = (module for module in result.model.modules() if isinstance(module, nn.Linear))
    wanted = model.w if shape == (6, 8) else model.w.t()
    assert torch.equal(linear.weight, wanted)
    assert result.verify(torch.randn(5, 8)).max_rel < 1e-6


@pytest.mark.parametrize("equation", ["nd,de->en", "nd,n->nd", "nd,dne->e"])
def test_products_by_other_axes_are_left(equation):
    shapes = {"nd,de->en": (8, 6), "nd,n->nd": (3,), "nd,dne->e": (8, 3, 6)}
    model = net(lambda m, x: torch.einsum(equation, x, m.w), w=nn.Parameter(torch.ones(shapes[equation])))
    assert applied(check_rewrite(model, (X,), [ComputedWeightPattern()])) == []


def test_both_captures_give_one_plan():
    for model, x in ((block(), MAPS), (sliced(), X)):
        plans = []
        for trace in ("symbolic", "export"):
            result = transform(model, x, backend="tensorrt", trace=trace)
            called = [str(node.target) for node in result.model.graph.nodes if node.op == "call_module"]
            plans.append([(path, type(result.model.get_submodule(path))) for path in called if path != "_guards_fn"])
        assert plans[0] == plans[1]


class Causal(nn.Conv1d):
    """A convolution of the past, whose class is the user's, so that it is no leaf."""

    def forward(self, x):
        return super().forward(F.pad(x, (2, 0)))


@TRACES
def test_weight_norm_of_a_layer_of_the_users(trace):
    x = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(parametrizations.weight_norm(Causal(4, 6, 3)), nn.ReLU()).eval()
    with torch.no_grad():
        model[0].parametrizations.weight.original0.mul_(3.0)
    quantized = quantize(transform(model, x, backend="tensorrt", trace=trace), [x], progress=False)
    assert not quantization_report(quantized).uncovered
    ((path, conv),) = ((path, each) for path, each in quantized.named_modules() if isinstance(each, nn.Conv1d))
    assert path.startswith("0.conv1d")
    torch.testing.assert_close(conv.weight, model[0].weight)


@pytest.mark.parametrize("parametrization", [parametrizations.weight_norm, parametrizations.spectral_norm])
@TRACES
def test_parametrized_layers_are_quantized_by_what_they_compute(parametrization, trace):
    model = nn.Sequential(parametrization(nn.Linear(8, 6)), nn.ReLU()).eval()
    result = transform(model, X, backend="tensorrt", trace=trace)
    quantized = quantize(result, [X], progress=False)
    wanted = model[0].weight.detach().abs().amax(1) / 127
    torch.testing.assert_close(quantized.get_submodule("0.weight_fake_quant.quantizer").scale, wanted)


@pytest.mark.parametrize("written", [lambda w: w.mul_(0.5), lambda w: w[:3].mul_(0.5)])
def test_a_weight_that_is_written_into_is_declined(written):
    def forward(m, x):
        weight = m.w * 2.0
        written(weight)
        return F.linear(x, weight)

    result = check_rewrite(
        net(forward, w=nn.Parameter(torch.empty(6, 8), requires_grad=False)), (X,), [ComputedWeightPattern()]
    )
    assert applied(result) == []
    assert reasons(result) == [
        "linear: ComputedWeightPattern declined: mul_ changes mul, of which its weight is made, in place"
    ]


@pytest.mark.parametrize(
    ("function", "shape", "reason"),
    [
        (F.linear, (8,), "its weight is one vector: the product is bound by memory, not by arithmetic"),
        (
            torch.matmul,
            (3, 8, 4),
            "no module of torch.nn computes matmul with a weight of shape (3, 8, 4) and these settings",
        ),
    ],
)
def test_what_no_module_computes_is_declined(function, shape, reason):
    result = check_rewrite(
        net(lambda m, x: function(x, m.w * 2.0), w=nn.Parameter(torch.empty(shape))), (X,), [ComputedWeightPattern()]
    )
    assert reasons(result) == [f"{function.__name__}: ComputedWeightPattern declined: {reason}"]


def test_a_computed_weight_that_others_read_stays_for_them():
    def forward(m, x):
        weight = m.w * 2.0
        return F.linear(x, weight) + F.linear(x + 1, weight) + weight.sum()

    model = net(forward, w=nn.Parameter(torch.empty(8, 8)))
    result = check_rewrite(model, (X,), [ComputedWeightPattern()])
    assert len(applied(result)) == 2
    assert [p.numel() for p in result.model.parameters()] == [64]
