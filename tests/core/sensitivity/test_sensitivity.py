"""What quantizing each layer costs, against networks that are quantized layer by layer."""

import copy
import json
import math
import threading

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.quantize import QuantConfig, TensorQuantConfig, freeze, insert_qdq, quantization_report, quantize
from embedl_deploy.sensitivity import sensitivity
from embedl_deploy.sensitivity.evaluation import number_from
from embedl_deploy.sensitivity.layers import OwnQuantizers, layers_of
from embedl_deploy.sensitivity.metrics import METRICS
from embedl_deploy.sensitivity.partly import PartlyQuantized
from embedl_deploy.verify import signal_to_noise


class Blocks(nn.Module):
    """Residual blocks of equal structure, with an activation in place, between a stem and a classifier."""

    def __init__(self, blocks=4, width=16):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(True)) for _ in range(blocks)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        for scale, block in enumerate(self.blocks):
            x = x + block(x) * (0.3 + scale)
        return self.head(x.mean((2, 3)))


def quantized(model, x, **settings):
    return quantize(transform(model, x, backend="tensorrt"), [x], progress=False, **settings)


@pytest.fixture(scope="module")
def blocks():
    torch.manual_seed(0)
    model, x = Blocks().eval(), torch.randn(64, 3, 10, 10)
    return quantized(model, x), x


def ranks(values):
    return torch.tensor(values).argsort().argsort().double()


@torch.no_grad()
def alone(model, x, layers):
    with OwnQuantizers(model).taken_out():
        exact = model(x)
    return [signal_to_noise(exact, PartlyQuantized(model, [layer])(x)) for layer in layers]


def test_one_pass_agrees_with_quantizing_layer_by_layer(blocks):
    model, x = blocks
    report = sensitivity(model, x.split(16))
    layers = layers_of(model, quantization_report(model))
    wanted = alone(model, x, layers)
    found = [layer.alone for layer in report.layers]
    assert [layer.path for layer in report.layers] == [layer.path for layer in layers]
    assert len(layers) == 6
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 2.5  # dB
    assert torch.corrcoef(torch.stack([ranks(found), ranks(wanted)]))[0, 1] >= 0.8
    assert report.quantized == pytest.approx(signal_to_noise(PartlyQuantized(model, [])(x), model(x)), abs=1e-3)


def test_of_a_linear_network_the_noise_is_exact_in_the_mean():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).eval(), torch.randn(8, 8)
    calibrated = quantized(model, x)
    report = sensitivity(calibrated, [x], probes=400)
    layers = layers_of(calibrated, quantization_report(calibrated))
    assert [layer.alone for layer in report.layers] == pytest.approx(alone(calibrated, x, layers), abs=0.3)
    assert report.uncertainty == pytest.approx(math.sqrt(2 / 3200))


def test_layers_that_give_several_tensors_are_measured():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True).eval()
    x = torch.randn(64, 5, 16)
    model = quantized(layer, x)
    report = sensitivity(model, [x], probes=4)
    layers = layers_of(model, quantization_report(model))
    several = [row for row in report.layers if "in_proj" in row.path]
    assert several
    wanted = dict(zip([layer.path for layer in layers], alone(model, x, layers), strict=True))
    for row in report.layers:
        assert row.alone == pytest.approx(wanted[row.path], abs=2.5)


def test_weights_and_activations_are_told_apart():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), torch.randn(32, 8)
    only_weights = quantized(model, x, config=QuantConfig(activation=None, weight=TensorQuantConfig(per_channel=True)))
    for layer in sensitivity(only_weights, [x]).layers:
        assert layer.activation_alone == math.inf
        assert layer.weight_alone == layer.alone


def test_what_is_left_in_float_gives_back_its_share(blocks):
    model, x = blocks
    report = sensitivity(model, [x], probes=4)
    worst = report.ranking()[0]
    layers = layers_of(model, quantization_report(model))
    others = [layer for layer in layers if layer.path != worst.path]
    with torch.no_grad():
        wanted = signal_to_noise(PartlyQuantized(model, [])(x), PartlyQuantized(model, others)(x))
    assert worst.left_in_float == pytest.approx(wanted, abs=1)
    assert worst.left_in_float > report.quantized


def test_layers_of_equal_structure_are_a_group(blocks):
    model, x = blocks
    report = sensitivity(model, [x])
    groups = report.groups()
    assert len(groups) == 3  # stem, blocks, head
    assert sum(groups.values()) == pytest.approx(1)
    assert {layer.group for layer in report.layers if layer.path.startswith("blocks")} == {
        next(group for group in groups if group.startswith("blocks.*"))
    }


def test_the_divergence_of_small_errors_is_that_of_the_fisher_matrix():
    torch.manual_seed(0)
    logits, error = torch.randn(4, 10), 1e-3 * torch.randn(4, 10)
    metric = METRICS["kl"]
    generator = torch.Generator().manual_seed(0)
    probes = torch.stack([metric.probe(logits, generator) for _ in range(20000)])
    by_probes = float((probes * error).sum(-1).square().mean(0).sum())
    assert by_probes == pytest.approx(metric.energy([logits], [logits + error]), rel=0.03)


def test_by_divergence_the_order_is_that_of_quantizing_layer_by_layer(blocks):
    model, x = blocks
    report = sensitivity(model, [x], metric="kl", probes=4)
    layers, metric = layers_of(model, quantization_report(model)), METRICS["kl"]
    with torch.no_grad():
        exact = PartlyQuantized(model, [])(x)
        wanted = [metric.energy([exact], [PartlyQuantized(model, [layer])(x)]) / 2 / 64 for layer in layers]
    found = [layer.alone for layer in report.layers]
    assert found == pytest.approx(wanted, rel=0.5)
    assert report.quantized == pytest.approx(metric.energy([exact], [model(x)]) / 2 / 64, rel=1e-3)


def test_nothing_of_the_model_changes(blocks):
    model, x = blocks
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    asked = [parameter.requires_grad for parameter in model.parameters()]
    output = model(x[:2])
    sensitivity(model, [x])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == asked
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert torch.equal(model(x[:2]), output)
    model.eval()


def test_the_users_own_measure_is_asked_twice_for_each_group(blocks):
    model, x = blocks
    with torch.no_grad():
        exact = PartlyQuantized(model, [])(x)
    calls = []

    def agreement(candidate):
        calls.append(candidate)
        with torch.no_grad():
            return -float((candidate(x) - exact).abs().max())

    report = sensitivity(model, evaluate=agreement)
    assert len(calls) == 2 + 2 * 3
    assert report.metric == "evaluate"
    assert report.quantized == agreement(model)
    blocks_alone = [layer for layer in layers_of(model, quantization_report(model)) if layer.path.startswith("blocks")]
    assert report.layers[1].alone == agreement(PartlyQuantized(model, blocks_alone))
    assert report.layers[1].weight_alone is None
    assert sum(layer.share for layer in report.layers) == pytest.approx(1)


def test_an_interrupted_evaluation_goes_on_where_it_was(blocks, tmp_path):
    model, x = blocks
    state, calls = tmp_path / "state.json", []

    def measure(candidate, last=99):
        calls.append(candidate)
        if len(calls) == last:
            raise KeyboardInterrupt
        return float(candidate(x).sum())

    with pytest.raises(KeyboardInterrupt):
        sensitivity(model, evaluate=lambda candidate: measure(candidate, last=4), state=state)
    resumed = sensitivity(model, evaluate=measure, state=state)
    assert len(calls) == 8 + 1  # the one that was interrupted is the only one to be repeated
    assert resumed == sensitivity(model, evaluate=measure)


def test_an_interrupted_pass_goes_on_with_the_next_batch(blocks, tmp_path):
    model, x = blocks
    state, batches = tmp_path / "state.json", x.split(16)

    def half():
        yield from batches[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sensitivity(model, half(), state=state)
    assert len(json.loads(state.read_text())["found"]["batches"]) == 2
    assert sensitivity(model, batches, state=state) == sensitivity(model, batches)
    assert sensitivity(model, batches, state=state).batches == 4


def test_the_state_of_something_else_is_refused_by_name(blocks, tmp_path):
    model, x = blocks
    state = tmp_path / "state.json"
    sensitivity(model, [x], state=state)
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    for given, settings, what in (
        (other, {"data": [x]}, "another model"),
        (model, {"data": [x], "metric": "kl"}, "another metric"),
        (model, {"data": [x + 1]}, "other data"),
    ):
        with pytest.raises(InputError, match=what):
            sensitivity(given, state=state, **settings)
    state.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        sensitivity(model, [x], state=state)


def test_what_cannot_be_measured_is_said(blocks):
    model, x = blocks
    with pytest.raises(InputError, match="needs data"):
        sensitivity(model)
    with pytest.raises(InputError, match="finite number"):
        sensitivity(model, evaluate=lambda _: math.nan)
    with pytest.raises(QuantizationError, match="has no batch"):
        sensitivity(model, [])
    result = transform(Blocks().eval(), x[:2], backend="tensorrt")
    nothing = insert_qdq(result.model, result.matches, QuantConfig(skip=["*"]))
    with pytest.raises(QuantizationError, match="Nothing of the model is quantized"):
        sensitivity(nothing, [x])


def test_the_table_has_the_worst_first(blocks):
    model, x = blocks
    report = sensitivity(model, [x])
    lines = str(report).splitlines()
    assert lines[2].startswith(report.ranking()[0].path)
    assert len(lines) == 2 + len(report.layers)
    assert report.to_dict()["layers"][0]["path"] == "stem"


class Mixing(nn.Module):
    """A layer that gives a tuple, on a first dimension that is not one of samples."""

    def __init__(self):
        super().__init__()
        self.first, self.attention, self.last = nn.Linear(8, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, 8)

    def forward(self, x):
        y = torch.relu(self.first(x))
        return self.last(self.attention(y, y, y, need_weights=False)[0]).mean(0)


def test_samples_that_mix_are_one_probe_and_a_layer_may_give_several_tensors():
    torch.manual_seed(0)
    model, x = Mixing().eval(), torch.randn(16, 4, 8)
    model = quantized(model, x)
    report = sensitivity(model, [x], probes=64, progress=False)
    layers = layers_of(model, quantization_report(model))

    assert report.probes == 64
    assert any(layer.kind == "FusedMHAInProjection" for layer in layers)
    assert [layer.alone for layer in report.layers] == pytest.approx(alone(model, x, layers), abs=2.5)


def test_a_state_with_more_batches_is_of_other_data(blocks, tmp_path):
    model, x = blocks
    sensitivity(model, [x[:2], x[2:4]], state=tmp_path / "state.json", progress=False)
    with pytest.raises(InputError, match="of other data: it has 2 batches, and this has 1"):
        sensitivity(model, [x[:2]], state=tmp_path / "state.json", progress=False)


def test_what_cannot_be_measured_is_refused_in_words(blocks):
    model, x = blocks
    with pytest.raises(InputError, match="an output of the model is NaN or infinite"):
        sensitivity(model, [x[:2] * math.nan], progress=False)
    with pytest.raises(QuantizationError, match="The model is frozen"):
        sensitivity(freeze(model), [x[:2]], progress=False)


def test_no_gradient_is_refused_in_words():
    class Decision(nn.Linear):
        def forward(self, x):
            return super().forward(x).argmax(-1)

    x = torch.randn(2, 4)
    with pytest.raises(QuantizationError, match="Gradients reach no quantized layer"):
        sensitivity(quantized(Decision(4, 4).eval(), x), [x], progress=False)


def test_it_measures_in_inference_mode(blocks):
    model, x = blocks
    with torch.inference_mode():
        inside = sensitivity(model, [x[:2].clone()], progress=False)
    assert inside.quantized == sensitivity(model, [x[:2]], progress=False).quantized


def test_evaluate_may_give_a_tensor_with_one_value():
    assert number_from(torch.tensor([2.0]), "evaluate", "a model") == 2.0
    for wrong in (torch.zeros(2), None, "1", math.nan, math.inf):
        with pytest.raises(InputError, match=r"evaluate gave .* for a model; expected a finite number"):
            number_from(wrong, "evaluate", "a model")


class Masked(nn.Module):
    """Logits of which some are −∞: classes that are not allowed, or positions behind the present one."""

    def __init__(self, mask):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 6)
        self.register_buffer("mask", mask)

    def forward(self, x):
        return self.last(torch.relu(self.first(x))).masked_fill(self.mask, -math.inf)


@pytest.mark.parametrize("metric", ["sqnr", "kl"])
def test_masked_logits_have_no_noise(metric):
    torch.manual_seed(0)
    mask, x = torch.arange(6) >= 4, torch.randn(64, 8)
    masked = Masked(mask).eval()
    kept = nn.Sequential(copy.deepcopy(masked.first), nn.ReLU(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        kept[2].weight.copy_(masked.last.weight[:4])
        kept[2].bias.copy_(masked.last.bias[:4])
    # The scales are per channel of the weight, so that the first four are quantized alike.
    found, wanted = (
        sensitivity(quantized(model, x), [x], metric=metric, probes=300, progress=False) for model in (masked, kept)
    )
    assert found.quantized == pytest.approx(wanted.quantized, rel=1e-4)
    for one, other in zip(found.layers, wanted.layers, strict=True):
        assert one.alone == pytest.approx(other.alone, rel=0.05)
        assert math.isfinite(one.alone)


def test_infinities_that_are_no_mask_are_refused():
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    whole = quantized(Masked(torch.tensor(True)).eval(), x)
    with pytest.raises(InputError, match="is -inf along a whole last axis, which has no softmax"):
        sensitivity(whole, [x], metric="kl", progress=False)

    class Above(Masked):
        def forward(self, x):
            y = self.last(torch.relu(self.first(x)))
            return y.masked_fill(y < y.detach().median(), -math.inf)  # another place for noisy values

    class Upwards(Masked):
        def forward(self, x):
            return -super().forward(x)

    many = torch.randn(512, 8)
    with pytest.raises(InputError, match="is -inf in other places when it is quantized"):
        sensitivity(quantized(Above(torch.tensor(False)).eval(), many), [many], progress=False)
    with pytest.raises(InputError, match="an output of the model is NaN or infinite"):
        sensitivity(quantized(Upwards(torch.arange(6) > 4).eval(), x), [x], progress=False)


def test_a_gradient_that_overflows_is_refused_with_its_layer(tmp_path):
    class Steep(nn.Linear):
        def forward(self, x):
            return (super().forward(x) * 0).abs().sqrt()  # the slope of a square root at 0

    torch.manual_seed(0)
    x = torch.randn(4, 4)
    state = tmp_path / "state.json"
    with pytest.raises(InputError, match=r"the gradient or the error at '.+' is not finite"):
        sensitivity(quantized(Steep(4, 4).eval(), x), [x], state=state, progress=False)
    assert not state.exists()


def test_two_threads_measure_one_model_as_one_does(blocks):
    model, x = blocks
    alone, output, found = sensitivity(model, x.split(8), progress=False), model(x[:2]), []

    def work():
        found.append(sensitivity(model, x.split(8), progress=False))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):  # and others go on with the model, quantizers and all
        assert torch.equal(model(x[:2]), output)
    for thread in threads:
        thread.join()
    assert found == [alone] * 3


def test_what_transform_gave_is_refused_in_few_words():
    x = torch.randn(2, 4)
    result = transform(nn.Sequential(nn.Linear(4, 4)).eval(), x, backend="tensorrt")
    with pytest.raises(InputError, match="model is an object of class TransformationResult; expected a GraphModule"):
        sensitivity(result, [x])
    with pytest.raises(QuantizationError, match="is not a quantized model"):
        sensitivity(result.model, [x])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"probes": 0}, "probes is 0; expected 1 or more"),
        ({"probes": 1.5}, "probes is 1.5; expected a whole number"),
        ({"probes": True}, "probes is True; expected a whole number"),
        ({"metric": "snr"}, "metric is 'snr'; expected 'sqnr' or 'kl'"),
        ({"metric": None}, "metric is None; expected 'sqnr' or 'kl'"),
        ({"seed": 1.0}, "seed is 1.0; expected a whole number"),
        ({"evaluate": 3}, "evaluate is 3; expected a function"),
        ({"state": 3}, "state is 3; expected a path"),
        ({"data": torch.zeros(2, 3)}, "data is a tensor"),
    ],
)
def test_wrong_arguments_are_refused_in_words(blocks, wrong, words):
    model, x = blocks
    with pytest.raises(InputError, match=words):
        sensitivity(model, **{"data": [x], "progress": False, **wrong})
