"""Smoothing and equalization are tried on samples that were held back, and left out where they do harm: by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import QuantizationError
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.quantize import (
    ModulesToSkip,
    Precision,
    QuantConfig,
    SmoothQuantConfig,
    TensorQuantConfig,
    calibrate,
    quantization_report,
    quantize,
)
from embedl_deploy.quantize.accuracy.equalization import chains_of, equalize
from embedl_deploy.quantize.accuracy.group_statistics import measured_groups
from embedl_deploy.quantize.accuracy.scaling_trials import try_scalings
from embedl_deploy.quantize.accuracy.smoothing import smooth
from embedl_deploy.quantize.placing.placement import decide_for, place
from embedl_deploy.quantize.reporting.corrections import WhyNotCorrected
from embedl_deploy.verify import signal_to_noise
from support.nets import net, random_input

INT4_WEIGHTS = QuantConfig(activation=None, weight=TensorQuantConfig(Precision.INT4, per_channel=True))
PER_TENSOR = QuantConfig(activation=None, weight=TensorQuantConfig(Precision.INT4))


def linear(*weight):
    layer = nn.Linear(len(weight), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weight]))
    return layer


def joined(function, **parts):
    """A model of parts that keep their weights, which ``net`` would make random."""
    weights = {name: part.state_dict() for name, part in copy.deepcopy(parts).items()}
    model = net(function, **parts)
    for name, part in parts.items():
        part.load_state_dict(weights[name])
    return model


def quantized(model, data, config=None, **methods):
    first = data[0] if isinstance(data, list) else None
    result = transform(model.eval(), first, backend="tensorrt")
    corrected = quantize(result, data, config, progress=False, **methods)
    return corrected, quantization_report(corrected).corrections


class TestSmoothing:
    """A product with weights of 1 and of INT8, exactly. Three samples are learned from, the fourth is held back.

    α = 1 divides channel j by its largest magnitude in those learned from: 127 and 1.
    """

    def test_what_helps_on_the_sample_held_back_stays(self):
        """Held back: (60, 0.4). The step of the plain input is 1, and the output 60 instead of 60.4.

        Divided, the input is (60, 50.8) steps of 1/127, rounded to (60, 51), and the output 60 + 51/127.
        """
        x = torch.tensor([[127.0, 1.0], [64.0, 1.0], [32.0, 1.0], [60.0, 0.4]])
        model, (place, whole) = quantized(linear(1.0, 1.0), [x], smooth_quant=1.0)
        assert float(model(x)[3].detach()) == pytest.approx(60 + 51 / 127, abs=1e-4)
        assert not place.declined and place.outcome.startswith("by ")
        plain, smoothed = (20 * math.log10(60.4 / error) for error in (0.4, 51 / 127 - 0.4))
        assert whole.where == ""
        assert whole.outcome == f"{smoothed:.1f} dB on 1 sample held back, {plain:.1f} dB without"

    def test_what_harms_there_is_taken_back(self):
        """Held back: (60.25, 127). The step of the plain input is 1, and the output 187 instead of 187.25.

        Divided, the largest is 127, the step is 1, the input is (0, 127) steps, and the output 127: an error of 60.25
        in place of 0.25, whose square is 58081 times as large.
        """
        x = torch.tensor([[127.0, 1.0], [64.0, 1.0], [32.0, 1.0], [60.25, 127.0]])
        model, (place,) = quantized(linear(1.0, 1.0), [x], smooth_quant=1.0)
        assert place.cause is WhyNotCorrected.LAYER_WORSE
        assert place.outcome == (
            "declined: taken back: the squared error of its outputs was 5.81e+04 times as large on 1 sample held back"
        )
        plain, _ = quantized(linear(1.0, 1.0), [x])
        assert torch.equal(model(x), plain(x)) and float(model(x)[3].detach()) == 187
        assert model.code == plain.code

    #: Inputs of a and b, whose outputs are subtracted, and of c; the last row is held back.
    X = torch.tensor(
        [
            [127.0, 1.0, 127.0, 1.0, 127.0, 1.0],
            [64.0, 1.0, 64.0, 1.0, 64.0, 1.0],
            [32.0, 1.0, 32.0, 1.0, 32.0, 1.0],
            [60.0, 0.4, 30.0, 0.4, 60.0, 0.4],
        ]
    )
    WITHOUT_B = QuantConfig(skip=ModulesToSkip(smooth={"b"}))

    def test_a_place_that_is_better_may_make_the_model_worse(self):
        """a(x₁) − b(x₂), both plain outputs 0.4 too low on the sample held back, (60, 0.4) and (30, 0.4): 30 is exact.

        Smoothed, a is 51/127 − 0.4 too high, and b, which is not, 0.4 too low. 20·lg(30/0.40157) = 37.47 dB.
        """
        model = joined(lambda m, x: m.a(x[:, :2]) - m.b(x[:, 2:4]), a=linear(1.0, 1.0), b=linear(1.0, 1.0))
        corrected, found = quantized(model, [self.X], self.WITHOUT_B, smooth_quant=1.0)
        assert [c.cause for c in found] == [
            WhyNotCorrected.MODEL_WORSE,
            WhyNotCorrected.SKIPPED,
            WhyNotCorrected.MODEL_WORSE,
        ]
        assert "taken back: an SQNR of 37.47 dB on 1 sample held back" in found[0].outcome
        assert "taken back with all others: an SQNR of 37.47 dB on 1 sample held back" in found[-1].outcome
        plain, _ = quantized(model, [self.X], self.WITHOUT_B)
        assert torch.equal(corrected(self.X), plain(self.X)) and float(corrected(self.X)[3].detach()) == 30

    def test_the_one_place_that_makes_the_model_worse_is_found(self):
        """The same beside c, which smoothing brings from an error of 0.4 to one of 51/127 − 0.4.

        With a and c the error is 0.40157² + 0.00157², above 0.4² without any: c stays, a does not.
        """
        model = joined(
            lambda m, x: torch.cat([m.a(x[:, :2]) - m.b(x[:, 2:4]), m.c(x[:, 4:])], 1),
            a=linear(1.0, 1.0),
            b=linear(1.0, 1.0),
            c=linear(1.0, 1.0),
        )
        corrected, found = quantized(model, [self.X], self.WITHOUT_B, smooth_quant=1.0)
        assert [c.cause for c in found] == [WhyNotCorrected.MODEL_WORSE, WhyNotCorrected.SKIPPED, None, None]
        assert corrected(self.X)[3].tolist() == pytest.approx([30, 60 + 51 / 127], abs=1e-4)
        signal = 30**2 + 60.4**2
        alone, before = (10 * math.log10(signal / error) for error in (0.4**2 + (51 / 127) ** 2, 0.4**2))
        told = f"taken back: an SQNR of {alone:.2f} dB on 1 sample held back, {before:.2f} dB without"
        assert told in found[0].outcome
        after = 20 * math.log10(signal**0.5 / (51 / 127 - 0.4))
        told, _, rest = found[-1].outcome.partition(" dB")
        assert float(told) == pytest.approx(after, abs=0.1)
        assert rest == f" on 1 sample held back, {before:.1f} dB without"

    def test_one_place_is_taken_back_and_the_other_stays(self):
        """The layers of the first two tests, side by side."""
        model = joined(
            lambda m, x: torch.cat([m.a(x[:, :2]), m.b(x[:, 2:])], 1), a=linear(1.0, 1.0), b=linear(1.0, 1.0)
        )
        x = torch.tensor([[127.0, 1.0, 127.0, 1.0], [64.0, 1.0, 64.0, 1.0], [32.0, 1.0, 32.0, 1.0]])
        x = torch.cat([x, torch.tensor([[60.0, 0.4, 60.25, 127.0]])])
        corrected, (helps, harms, whole) = quantized(model, [x], smooth_quant=1.0)
        assert [helps.cause, harms.cause, whole.cause] == [None, WhyNotCorrected.LAYER_WORSE, None]
        assert corrected(x)[3].tolist() == pytest.approx([60 + 51 / 127, 187.0], abs=1e-4)

    def test_statistics_are_of_all_samples_but_those_held_back(self):
        """80 are recorded, in two batches, of each of which a quarter is held back; the third is not recorded."""
        batches = [torch.ones(40, 2), torch.ones(40, 2), torch.full((40, 2), 3.0)]
        batches[0][3] = 100.0  # of four, the last is held back
        batches[1][4] = 2.0
        result = transform(linear(1.0, 1.0).eval(), batches[0], backend="tensorrt")
        decisions, _ = decide_for(result.model, result.matches, None)
        ((group,), held_back) = measured_groups(result.model, decisions, batches, progress=False)
        assert group.statistics.count == 120 - 20
        assert group.statistics.largest.tolist() == [3.0, 3.0]
        assert group.statistics.squares.tolist() == [59 + 4 + 40 * 9] * 2
        assert str(held_back) == "20 samples held back"


def chain(first, second, act=None):
    """A 1×1 convolution of one channel to two, a ReLU, and one to one channel again."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), act or nn.ReLU(), nn.Conv2d(2, 1, 1, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(first).reshape(2, 1, 1, 1))
        model[2].weight.copy_(torch.tensor(second).reshape(1, 2, 1, 1))
    return model


def images(*values):
    return torch.tensor(values).reshape(-1, 1, 1, 1)


class TestEqualization:
    """INT4 weights, seven steps to the largest of each row; rows of one weight are exact."""

    X = images(0.5, 1.0, 1.5, 2.0)

    def test_what_helps_on_the_sample_held_back_stays(self):
        """Columns 7 and 0.4 are 7 and 0 steps of 1. Rows of 1/7 and 2.5 make all four weights 1: seven steps.

        7·x/7 + 0.4·2.5·x = 2·x, and x without equalization: 20·lg 2 = 6.0 dB.
        """
        model = chain([1 / 7, 2.5], [7.0, 0.4])
        plain, _ = quantized(model, [self.X], INT4_WEIGHTS)
        assert plain(self.X).flatten().tolist() == pytest.approx(self.X.flatten().tolist())
        even, (pair, whole) = quantized(model, [self.X], INT4_WEIGHTS, equalization=True)
        assert even(self.X).flatten().tolist() == pytest.approx((2 * self.X).flatten().tolist(), rel=1e-5)
        assert (pair.where, pair.outcome) == ("0 → 2", "equalized")
        assert whole.outcome.endswith("on 1 sample held back, 6.0 dB without")

    def test_what_harms_there_is_taken_back(self):
        """Columns 7 and 1.05 are 7 and 1 steps of 1: an error of 0.05·x. Rows are 1.

        Equalized they are √7 and √1.05, in steps of √7/7 seven and 2.711, rounded to three: 1.13389 instead of 1.02470,
        on values of 1.02470·x, an error of 0.11189·x, whose square is 5.01 times as large.
        """
        model = chain([1.0, 1.0], [7.0, 1.05])
        assert pytest.approx(5.01, abs=5e-3) == (((3 / 7**0.5 - 1.05**0.5) * 1.05**0.5) / 0.05) ** 2
        even, (pair,) = quantized(model, [self.X], INT4_WEIGHTS, equalization=True)
        assert pair.cause is WhyNotCorrected.LAYER_WORSE
        assert "the squared error of its outputs was 5.01 times as large on 1 sample held back" in pair.outcome
        plain, _ = quantized(model, [self.X], INT4_WEIGHTS)
        assert all(
            torch.equal(a, b) for a, b in zip(even.state_dict().values(), plain.state_dict().values(), strict=True)
        )

    def test_only_the_samples_held_back_count(self):
        """The second channel is that of −x, and lives in the three samples that are learned from: 0.4 is lost there.

        The sample held back is positive. Its output is 7·x, exact before and after, whatever becomes of the other.
        """
        model = chain([1 / 7, -2.5], [7.0, 0.4])
        _, (pair, whole) = quantized(model, [images(-1.0, -2.0, -3.0, 2.0)], INT4_WEIGHTS, equalization=True)
        assert (pair.declined, whole.declined) == (False, False)
        assert whole.outcome == "inf dB on 1 sample held back, inf dB without"

    def test_a_pair_that_is_better_may_make_the_model_worse(self):
        """2·x of the first test minus 1.5·x of rows of 0.5/7 and 2.5, around a ReLU6, which lets no factors through.

        Without equalization x − 0.5·x is exact; with it, 2·x − 0.5·x is x too high: 20·lg(0.5·x/x) = −6.02 dB.
        """
        model = joined(
            lambda m, x: m.a(x) - m.b(x),
            a=chain([1 / 7, 2.5], [7.0, 0.4]),
            b=chain([0.5 / 7, 2.5], [7.0, 0.4], nn.ReLU6()),
        )
        even, found = quantized(model, [self.X], INT4_WEIGHTS, equalization=True)
        causes = {c.where: c.cause for c in found}
        assert causes == {
            "a.0 → a.2": WhyNotCorrected.MODEL_WORSE,
            "b.0 → b.2": WhyNotCorrected.MODULE_DECLINES,
            "": WhyNotCorrected.MODEL_WORSE,
        }
        assert "an SQNR of -6.02 dB on 1 sample held back" in found[-1].outcome
        plain, _ = quantized(model, [self.X], INT4_WEIGHTS)
        assert torch.equal(even(self.X), plain(self.X))

    def test_one_pair_is_taken_back_and_the_other_of_a_chain_stays(self):
        """The pair that harms, and after it, read twice so that they are no pair, the one that helps."""
        model = joined(
            lambda m, x: m.b(m.a(x).abs()), a=chain([1.0, 1.0], [7.0, 1.05]), b=chain([1 / 7, 2.5], [7.0, 0.4])
        )
        even, found = quantized(model, [self.X], INT4_WEIGHTS, equalization=True)
        assert {c.where: c.cause for c in found} == {
            "a.0 → a.2": WhyNotCorrected.LAYER_WORSE,
            "b.0 → b.2": None,
            "": None,
        }
        assert even(self.X).flatten().tolist() == pytest.approx((16 * self.X).flatten().tolist(), rel=1e-5)

    @pytest.mark.parametrize("form", ["list", "generator", "function"])
    def test_data_in_every_form_gives_the_same(self, form):
        """Also what can be read once, and more than what is recorded: ranges are those of all."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
        with torch.no_grad():
            model[0].weight.mul_(torch.logspace(-1, 1, 8).reshape(-1, 1, 1, 1))
        batches = [random_input(40, 3, 6, 6, seed=seed) * (1 + seed) for seed in range(3)]
        result = transform(model, batches[0][:1], backend="tensorrt")
        read = []

        def generator():
            for batch in batches:
                read.append(batch)
                yield batch

        data = {"list": batches, "generator": generator(), "function": lambda called: [called(x) for x in batches]}
        wanted = quantize(result, batches, progress=False, equalization=True)
        given = quantize(result, data[form], progress=False, equalization=True)
        assert torch.equal(given(batches[2]), wanted(batches[2]))
        assert quantization_report(given).corrections == quantization_report(wanted).corrections
        assert "20 samples held back" in quantization_report(given).corrections[-1].outcome
        assert len(read) == (3 if form == "generator" else 0)

    def test_a_chain_is_tried_as_a_whole(self):
        """Its factors belong together: the second pair alone, without the first, would be worse than none."""
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 1)]
        model = nn.Sequential(*layers).eval()
        with torch.no_grad():
            model[0].weight.mul_(torch.logspace(-1, 1, 8).reshape(-1, 1, 1, 1))
        x, unseen = random_input(8, 3, 6, 6), random_input(8, 3, 6, 6, seed=3)
        plain, _ = quantized(model, [x], PER_TENSOR)
        even, found = quantized(model, [x], PER_TENSOR, equalization=True)
        assert [c.declined for c in found] == [False, False, False]
        gain = signal_to_noise(model(unseen), even(unseen)) - signal_to_noise(model(unseen), plain(unseen))
        assert gain > 1

    def test_both_methods_are_judged_one_after_the_other(self):
        model = joined(
            lambda m, x: m.linear(m.convs(x).flatten(1).repeat(1, 2)),
            convs=chain([1 / 7, 2.5], [7.0, 0.4]),
            linear=linear(1.0, 1.0),
        )
        config = QuantConfig(weight=TensorQuantConfig(Precision.INT8, per_channel=True))
        _, found = quantized(model, [self.X], config, equalization=True, smooth_quant=0.5)
        assert (found[0].what, found[-1].what) == ("equalization", "smoothing")
        assert {c.what for c in found} == {"equalization", "smoothing"}


@pytest.mark.parametrize("asymmetric", [False, True])
def test_a_trial_leaves_the_model_as_it_was(asymmetric):
    """Weights, scales, zero points, parts and hooks, and what it computes, bit for bit."""
    model = joined(
        lambda m, x: m.linear(m.norm(m.convs(x).flatten(1).repeat(1, 2))),
        convs=chain([1.0, 1.0], [7.0, 1.05]),
        norm=nn.LayerNorm(2),
        linear=linear(1.0, 3.0),
    )
    x = TestEqualization.X
    activation = TensorQuantConfig(symmetric=not asymmetric)
    result = transform(model, x, backend="tensorrt")
    decisions, policy = decide_for(result.model, result.matches, QuantConfig(activation))
    groups, held_back = measured_groups(result.model, decisions, [x], progress=False)
    changed = deep_copy(result.model)
    scalings = [*chains_of(equalize(changed, decisions)), *smooth(changed, groups, SmoothQuantConfig(0.5))]
    assert [scaling.where for scaling in scalings] == [["convs.0 → convs.2"], ["norm_1"]]
    plain = place(result.model, decisions, policy)
    calibrate(plain, [x], progress=False)
    modules, wanted = list(plain.modules()), plain(x)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    worse = try_scalings(plain, scalings, held_back)
    assert set(worse) <= {"convs.0 → convs.2", "norm_1"}
    assert list(plain.modules()) == modules
    assert not any(part._forward_pre_hooks for part in modules)
    after = plain.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(plain(x), wanted)


def test_a_model_that_the_first_samples_do_not_calibrate_is_not_judged(monkeypatch):
    """As where a module looks at a value and goes another way; all data calibrates it."""

    def fails(*_args, **_settings):
        raise QuantizationError("The calibration data never reached 1 of 4 tensors.")

    monkeypatch.setattr("embedl_deploy.quantize.accuracy.by_places.find_grids", fails)
    model = chain([1.0, 1.0], [7.0, 1.05])
    _, (pair, whole) = quantized(model, [TestEqualization.X], INT4_WEIGHTS, equalization=True)
    assert pair.outcome == "equalized"
    assert whole.outcome == (
        "not judged, because the first samples do not calibrate the model. The calibration data never reached 1 of 4 "
        "tensors."
    )
