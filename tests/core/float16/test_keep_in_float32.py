"""Networks that float16 does not hold: right in float16 all the same, with no more in float32 than it takes."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.export import run_onnx
from embedl_deploy.float16 import float32_report, keep_in_float32
from embedl_deploy.float16.report import Float16Limit, Float32Report
from embedl_deploy.quantize import quantize
from embedl_deploy.verify import signal_to_noise


class Logits(nn.Module):
    """Attention logits of 1e5."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        with torch.no_grad():
            self.q.weight.mul_(400)
            self.k.weight.mul_(400)

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (4, 8)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Variance(nn.Module):
    """A variance of 1e-9, and an epsilon far below it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x):
        y = self.first(x) * 3e-5
        variance = (y * y).mean((2, 3), keepdim=True)
        return self.second(y / torch.sqrt(variance + 1e-14))


class Stream(nn.Module):
    """A residual stream that grows to 1e5, between layer norms."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(5))
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))
        self.last = nn.Linear(32, 8)
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.mul_(3e4)

    def forward(self, x):
        for norm, layer in zip(self.norms, self.layers, strict=False):
            x = x + layer(norm(x))
        return self.last(self.norms[-1](x))


class Softmax(nn.Module):
    """A softmax over 4096 keys that is written without subtracting the largest."""

    def __init__(self):
        super().__init__()
        self.keys, self.values = nn.Linear(16, 4096), nn.Linear(4096, 8)

    def forward(self, x):
        weights = torch.exp(self.keys(x) * 4 + 6)
        return self.values(weights / weights.sum(-1, keepdim=True))


class Sum(nn.Module):
    """A sum over 224×224 positions."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 4)

    def forward(self, x):
        return self.last(F.relu(self.conv(x) * 30).sum((2, 3)) / (224 * 224))


#: Which modules, or nodes of forward, stay in float32; found by hand.
NETWORKS = {
    "logits": (Logits, (2, 16, 32), {"scaled_dot_product_attention"}),
    "variance": (Variance, (2, 3, 12, 12), {"mul_1", "mean", "add", "sqrt", "truediv"}),
    "softmax": (Softmax, (4, 16), {"exp", "sum_1", "truediv"}),
    "sum": (Sum, (1, 3, 224, 224), {"sum_1", "truediv"}),
}


def network(kind, shape):
    torch.manual_seed(0)
    return kind().eval(), torch.randn(shape)


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_only_what_float16_does_not_hold_stays_in_float32(name, quantized, tmp_path):
    kind, shape, expected = NETWORKS[name]
    model, x = network(kind, shape)
    result = transform(model, x, backend="tensorrt")
    given = quantize(result, [x], progress=False) if quantized else result.model
    before = {key: value.clone() for key, value in given.state_dict().items()}

    held = keep_in_float32(given, [x], progress=False)

    report = float32_report(held)
    places = {each.module or each.node for each in report.nodes}
    assert {place for place in places if not place.endswith("_quant")} == expected
    assert torch.equal(held(x), given(x))  # in float32 nothing has changed
    assert all(torch.equal(value, before[key]) for key, value in given.state_dict().items())
    assert report.sqnr >= report.sqnr_before
    exported = export_onnx(held, x, tmp_path / "held.onnx", dtype=torch.float16)
    (found,) = run_onnx(exported.path, x.half())
    # Beside logits of 1e5 one step of a quantizer decides which key is the largest.
    least = 40 if not quantized else 10 if name == "logits" else 30
    assert signal_to_noise(given(x), found.float()) > least
    assert signal_to_noise(given(x), held.half()(x.half()).float()) > least


def test_a_residual_stream_beyond_65504_is_summed_and_normalized_in_float32():
    model, x = network(Stream, (4, 32))
    held = keep_in_float32(transform(model, x, backend="tensorrt"), [x])
    report = float32_report(held)
    assert {each.module for each in report.nodes if each.module.startswith("layers")} == set()  # the products are not
    assert next(each for each in report.nodes if each.limit is Float16Limit.LARGEST).value > 65504
    assert report.sqnr_before == -float("inf")
    assert report.sqnr > 50
    assert held.half().get_submodule("layers.0.linear").weight.dtype is torch.float16


def test_weights_that_float16_does_not_hold_stay_in_float32(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    with torch.no_grad():
        model[0].weight.mul_(1e6)
        model[2].weight.mul_(1e-6)
    x = torch.randn(2, 3, 12, 12)
    held = keep_in_float32(transform(model, x, backend="tensorrt"), [x])
    exported = export_onnx(held, x, tmp_path / "held.onnx", dtype=torch.float16)
    assert exported.sqnr > 60
    half = pickle.loads(pickle.dumps(copy.deepcopy(held))).half()
    assert {tensor.dtype for tensor in half.parameters()} == {torch.float32}
    assert torch.allclose(half(x.half()).float(), model(x), atol=2e-3)


def test_inputs_that_float16_does_not_hold_are_given_in_float32(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        model[0].weight.mul_(1e-5)
    x = torch.randn(4, 8) * 1e6
    held = keep_in_float32(transform(model, x, backend="tensorrt"), [x])
    exported = export_onnx(held, x, tmp_path / "held.onnx", dtype=torch.float16)
    (found,) = run_onnx(exported.path, x)  # in float32
    assert found.dtype is torch.float16
    assert signal_to_noise(model(x), found.float()) > 40


def test_what_holds_is_left_as_it_is():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), torch.randn(4, 8)
    result = transform(model, x, backend="tensorrt")
    held = keep_in_float32(result, [x])
    assert float32_report(held).nodes == ()
    assert [node.name for node in held.graph.nodes] == [node.name for node in result.model.graph.nodes]
    assert "fits into float16" in str(float32_report(held))


def test_masks_need_no_float32():
    class Masked(nn.Module):
        def forward(self, scores, keep):
            return torch.softmax(scores.masked_fill(~keep, -1e9), -1)

    scores, keep = torch.randn(4, 8), torch.rand(4, 8) > 0.3
    held = keep_in_float32(transform(Masked(), (scores, keep), backend="tensorrt"), [(scores, keep)])
    assert float32_report(held).nodes == ()


def test_shared_weights_stay_in_float32_only_where_they_have_to():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens):
            return self.head(self.table(tokens) * 1e5) * 1e-5

    torch.manual_seed(0)
    model, tokens = Tied().eval(), torch.arange(6).reshape(2, 3)
    held = keep_in_float32(transform(model, tokens, backend="tensorrt"), [tokens])
    half = held.half()
    assert half.table.weight.dtype is torch.float16
    assert half.head.linear.weight.dtype is torch.float32
    assert signal_to_noise(model(tokens), half(tokens).float()) > 50


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda model, x: keep_in_float32(copy.deepcopy(model).half(), [x]), InputError, "before it was converted"),
        (lambda model, x: keep_in_float32(model, []), QuantizationError, "has no batch"),
        (lambda model, x: keep_in_float32(model, x), InputError, "a function or an iterable"),
        (lambda model, x: float32_report(model), InputError, "keep_in_float32 returned"),
    ],
    ids=["half", "no data", "a tensor", "no report"],
)
def test_wrong_arguments_say_what_to_pass(wrong, error, words):
    model = transform(nn.Linear(4, 4), torch.randn(2, 4), backend="tensorrt").model
    with pytest.raises(error, match=words):
        wrong(model, torch.randn(2, 4))


def test_the_report_is_json_and_words():
    model, x = network(Sum, (1, 3, 224, 224))
    report = float32_report(keep_in_float32(transform(model, x, backend="tensorrt"), [x]))
    plain = report.to_dict()
    assert plain["nodes"][0] == {
        "node": "sum_1",
        "module": "",
        "operator": "sum",
        "limit": "largest",
        "value": report.nodes[0].value,
        "reason": report.nodes[0].reason,
    }
    assert "sum (sum_1) reaches" in str(report)
    assert "the largest float16 number is 65504" in str(report)


class Written(nn.Module):
    """A part of a value is overwritten through a view with what float16 does not hold."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        y = self.layer(x)
        y[:, :4].mul_(1e6)
        return y.sum(1) / 1e6, y.cos() * 0 + (y / 1e6).clamp(-1, 1)


def test_what_is_written_through_a_view_is_read_in_float16():
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    model = transform(Written().eval(), x, backend="tensorrt").model
    held = keep_in_float32(model, [x], progress=False)

    assert all(torch.equal(a, b) for a, b in zip(held(x), model(x), strict=True))
    in_half = [y.float() for y in copy.deepcopy(held).half()(x.half())]
    assert signal_to_noise(list(model(x)), in_half) > 40


def test_inputs_are_those_of_the_call_and_running_statistics_stay():
    torch.manual_seed(0)
    model = transform(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval(), torch.randn(2, 4), backend="tensorrt")
    model.model.train()
    before, given = copy.deepcopy(model.model.state_dict()), torch.zeros(2, 4)

    def runs(candidate):
        for scale in (1e6, 1.0):
            candidate(given.fill_(scale))

    held = keep_in_float32(model, runs, progress=False)
    assert float32_report(held).sqnr_before == -torch.inf
    assert model.model.training
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())


def test_what_does_not_hold_is_not_said_to_hold():
    assert str(Float32Report((), 10.0, 10.0)).startswith("Nothing stays in float32, since that would not help: 10.0 dB")


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_data_that_float32_does_not_hold_either_is_refused(value):
    torch.manual_seed(0)
    x = torch.randn(2, 8)
    result = transform(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), x, backend="tensorrt")
    with pytest.raises(InputError, match=r"Batch 2 .*an output of the model is NaN or infinite in float32"):
        keep_in_float32(result, [x, x.index_fill(1, torch.tensor(2), value)], progress=False)


def test_masks_of_minus_infinity_are_data_like_any_other():
    class Masked(nn.Module):
        def forward(self, scores, mask):
            return (scores + mask).softmax(-1), scores + mask

    scores, mask = torch.randn(2, 8), torch.zeros(2, 8).index_fill(1, torch.tensor([3, 5]), -torch.inf)
    held = keep_in_float32(transform(Masked(), (scores, mask), backend="tensorrt"), [(scores, mask)], progress=False)
    assert not float32_report(held).nodes
