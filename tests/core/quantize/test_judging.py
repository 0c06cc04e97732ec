"""What corrections learn from, what judges them, and that what does harm there is taken back, with values by hand."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantization_report, quantize
from embedl_deploy.quantize.accuracy.held_back import hold_back
from embedl_deploy.quantize.accuracy.kept import Kept
from embedl_deploy.quantize.reporting.corrections import WhyNotCorrected
from embedl_deploy.verify import signal_to_noise
from support.nets import net, random_input

INT4_WEIGHTS = QuantConfig(activation=None, weight=TensorQuantConfig(Precision.INT4, per_channel=True))


def layer(weight, bias=(0.0,)):
    """A Linear of one output, or of as many as ``weight`` has rows."""
    rows = torch.tensor(weight).reshape(len(bias), -1)
    linear = nn.Linear(rows.shape[1], len(bias))
    with torch.no_grad():
        linear.weight.copy_(rows)
        linear.bias.copy_(torch.tensor(bias))
    return linear.eval()


def quantized(model, data, **methods):
    result = transform(model, data[0], backend="tensorrt")
    corrected = quantize(result, data, INT4_WEIGHTS, progress=False, **methods)
    return corrected, quantization_report(corrected).corrections


def rows(*values):
    return torch.tensor(values)


class TestWhatIsHeldBack:
    def runs(self, model, *batches):
        result = transform(model, batches[0], backend="tensorrt")
        plain = quantize(result, list(batches), progress=False)
        return hold_back(plain, [((x,), {}) for x in batches])

    @pytest.mark.parametrize(
        ("count", "judged"),
        [(2, [1]), (3, [2]), (4, [3]), (5, [1, 4]), (6, [2, 5]), (8, [3, 7]), (9, [2, 5, 8])],
    )
    def test_samples_of_one_batch(self, count, judged):
        x = torch.arange(2.0 * count).reshape(count, 2)
        split = self.runs(layer([1.0, 2.0]), x)
        (((held,), _),), (((learned,), _),) = split.judged, split.learned
        assert held.tolist() == x[judged].tolist()
        assert learned.tolist() == [row for i, row in enumerate(x.tolist()) if i not in judged]
        assert str(split) == (f"{len(judged)} samples held back" if len(judged) > 1 else "1 sample held back")

    def test_every_fourth_run(self):
        batches = [torch.full((3, 2), float(i)) for i in range(8)]
        split = self.runs(layer([1.0, 2.0]), *batches)
        assert [float(x[0, 0]) for (x,), _ in split.judged] == [3.0, 7.0]
        assert [float(x[0, 0]) for (x,), _ in split.learned] == [0.0, 1.0, 2.0, 4.0, 5.0, 6.0]
        assert str(split) == "6 samples held back"

    def test_single_samples_are_whole_runs(self):
        split = self.runs(layer([1.0, 2.0]), *(torch.full((1, 2), float(i)) for i in range(3)))
        assert [float(x[0, 0]) for (x,), _ in split.judged] == [2.0]

    def test_one_sample_is_learned_from_and_judged_by(self):
        split = self.runs(layer([1.0, 2.0]), torch.ones(1, 2))
        assert split.judged is split.learned and len(split.judged) == 1
        assert str(split) == "the 1 sample that it learned from, because none could be held back"

    @pytest.mark.parametrize(
        "forward",
        [
            lambda m, x: m.layer(x - x.mean(0)),  # samples mix
            lambda m, x: m.layer(x).reshape(8, 1, 1),  # made for one number of samples
            lambda m, x: m.layer(x).sum(),  # no samples in the output
        ],
        ids=["mixed", "fixed", "summed"],
    )
    def test_a_batch_whose_samples_belong_together_is_not_split(self, forward):
        split = self.runs(net(forward, layer=layer([1.0, 2.0])), random_input(8, 2))
        assert split.judged is split.learned
        assert str(split) == "the 8 samples that it learned from, because none could be held back"
        split = self.runs(net(forward, layer=layer([1.0, 2.0])), random_input(8, 2), random_input(8, 2, seed=2))
        assert [len(part) for part in (split.learned, split.judged)] == [1, 1]


class TestBiasByHand:
    """Weights 7 and 1.4 on a grid of steps of 1 are 7 and 1: on (a, b), the output is 0.4·b too low.

    Three samples of four are learned from, the last is held back.
    """

    def model(self):
        return layer([7.0, 1.4])

    def test_a_bias_that_helps_on_the_sample_held_back_stays(self):
        x = rows([1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [4.0, 1.0])
        corrected, corrections = quantized(self.model(), [x], bias_correction=True)
        assert bias(corrected) == pytest.approx(0.4, abs=1e-5)
        assert [c.declined for c in corrections] == [False, False]
        # The error was 0.4 of an output of 7·4 + 1.4 = 29.4: 10·lg(73.5²) = 37.3 dB.
        assert corrections[-1].where == ""
        assert corrections[-1].outcome.endswith("on 1 sample held back, 37.3 dB without")

    def test_a_bias_that_harms_there_is_taken_back(self):
        """Learned: 0.4. On a sample with b = −1 the output was 0.4 too high, and would be 0.8."""
        x = rows([1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [4.0, -1.0])
        corrected, corrections = quantized(self.model(), [x], bias_correction=True)
        assert bias(corrected) == 0
        first, whole = corrections
        assert first.cause is WhyNotCorrected.LAYER_WORSE
        assert first.outcome == (
            "declined: taken back: the squared error of its outputs was 4 times as large on 1 sample held back"
        )
        assert whole.cause is None
        plain, _ = quantized(self.model(), [x])
        assert torch.equal(corrected(x), plain(x))

    def test_with_nothing_held_back_it_stays_and_that_is_said(self):
        _, corrections = quantized(self.model(), [rows([4.0, 1.0])], bias_correction=True)
        assert "on the 1 sample that it learned from, because none could be held back" in corrections[-1].outcome


def bias(model):
    return float(next(p.detach() for name, p in model.named_parameters() if name.endswith("bias")))


def overfitting():
    """Two samples to learn 64 weights from: rounding fits what they have in common, and fails on what is held back."""
    torch.manual_seed(0)
    x = random_input(4, 64)
    x[:3] = x[0] + 1e-3 * x[:3]
    return nn.Sequential(nn.Linear(64, 8)).eval(), x


def test_rounding_that_overfits_is_taken_back():
    model, x = overfitting()
    plain, _ = quantized(model, [x])
    learned, (first, whole) = quantized(model, [x], learned_rounding=True)
    assert first.cause is WhyNotCorrected.LAYER_WORSE and "on 1 sample held back" in first.outcome
    assert not whole.declined
    assert torch.equal(learned(x), plain(x)) or "its bias was corrected" in first.outcome
    assert signal_to_noise(model(x[3:]), learned(x[3:])) >= signal_to_noise(model(x[3:]), plain(x[3:]))


def test_it_would_have_done_harm():
    """The same layer, learned from the same three samples, with none to judge by but these."""
    model, x = overfitting()
    plain, _ = quantized(model, [x[:3].mean(0, keepdim=True)])
    learned, (first, _) = quantized(model, [x[:3].mean(0, keepdim=True)], learned_rounding=True)
    assert not first.declined
    assert signal_to_noise(model(x[3:]), learned(x[3:])) < signal_to_noise(model(x[3:]), plain(x[3:]))


def test_rounding_that_helps_is_kept():
    model = nn.Sequential(nn.Linear(8, 8)).eval()
    data, unseen = [random_input(64, 8) @ random_input(8, 8, seed=5)], random_input(64, 8, seed=2)
    unseen = unseen @ random_input(8, 8, seed=5)
    plain, _ = quantized(model, data)
    learned, corrections = quantized(model, data, learned_rounding=True)
    assert not any(c.declined for c in corrections)
    assert signal_to_noise(model(unseen), learned(unseen)) > signal_to_noise(model(unseen), plain(unseen)) + 1


class Difference(nn.Module):
    """Of a layer of the first two inputs and a layer of the others."""

    def __init__(self):
        super().__init__()
        self.one, self.two = layer([7.0, 1.4]), layer([7.0, 1.4])

    def forward(self, x):
        return self.one(x[:, :2]) - self.two(x[:, 2:])


def test_layers_that_are_better_may_be_worse_together():
    """The errors of two layers cancel; correcting the one, which helps it, would leave the other's.

    Both are 0.4·b too low. On the sample held back b is 1 in both, and 29.4 − 8.4 = 21.0 is 29 − 8, without error. The
    first learns from b = 1, and 0.4 is right on the sample; the second learns from b = −1, and −0.4 is taken back. What
    remains is an error of 0.4: 20·lg(21/0.4) = 34.4 dB.
    """
    model = Difference().eval()
    x = rows([1.0, 1.0, 1.0, -1.0], [2.0, 1.0, 2.0, -1.0], [3.0, 1.0, 3.0, -1.0], [4.0, 1.0, 1.0, 1.0])
    corrected, (one, two, whole) = quantized(model, [x], bias_correction=True)
    assert [c.cause for c in (one, two, whole)] == [
        WhyNotCorrected.MODEL_WORSE,
        WhyNotCorrected.LAYER_WORSE,
        WhyNotCorrected.MODEL_WORSE,
    ]
    assert "taken back with all others: an SQNR of 34.40 dB on 1 sample held back" in one.outcome
    plain, _ = quantized(model, [x])
    assert torch.equal(corrected(x), plain(x))


def three_layers(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    return model, torch.randn(8, 4)


def test_bias_correction_alone_is_tried_where_learned_rounding_harms_the_model():
    """What remains is what bias correction by itself gives, value by value, and better than nothing."""
    model, x = three_layers(seed=18)
    learned, (*layers, whole) = quantized(model, [x], learned_rounding=True)
    alone, (*_, alone_whole) = quantized(model, [x], bias_correction=True)
    plain, _ = quantized(model, [x])
    assert torch.equal(learned(x), alone(x)) and not torch.equal(learned(x), plain(x))
    held = x[[3, 7]]
    assert signal_to_noise(model(held), learned(held)) > signal_to_noise(model(held), plain(held))
    assert [c.cause for c in (*layers, whole)] == [WhyNotCorrected.MODEL_WORSE] * 4
    assert whole.outcome.endswith(f"dB without; bias correction alone: {alone_whole.outcome}")
    told = [c.outcome.partition("dB without; its bias")[2].partition(":")[0] for c in layers]
    assert told == [" was corrected", "", " was corrected"]
    assert "its bias: taken back: the squared error of its outputs was " in layers[1].outcome


def test_nothing_is_left_where_bias_correction_alone_harms_too():
    model, x = three_layers(seed=28)
    learned, (*layers, whole) = quantized(model, [x], learned_rounding=True)
    plain, _ = quantized(model, [x])
    assert torch.equal(learned(x), plain(x))
    assert whole.cause is WhyNotCorrected.MODEL_WORSE
    assert "; bias correction alone: declined: taken back with all others: an SQNR of " in whole.outcome
    assert not any("bias" in c.outcome for c in layers)


class TestKept:
    @pytest.mark.parametrize(
        "write",
        [
            lambda norm: norm.weight.detach().add_(1),
            lambda norm: norm.bias.data.__setitem__(0, 3.0),
            lambda norm: norm.weight.data.copy_(norm.weight.data.flip(0) * 2),
        ],
        ids=["through a view", "one value", "through data"],
    )
    def test_what_was_written_into_is_refused_by_name(self, write):
        norm = nn.BatchNorm1d(2)
        kept = Kept(norm)
        write(norm)
        for method in (kept.require_unwritten, kept.put_back):
            with pytest.raises(
                QuantizationError, match=r"wrote into 1 of 2 parameters, first '(weight|bias)'"
            ) as error:
                method()
            assert error.value.tensor in ("weight", "bias")

    def test_writing_into_what_is_new_is_allowed(self):
        norm = nn.BatchNorm1d(2)
        kept = Kept(norm)
        norm.weight = nn.Parameter(torch.ones(2))
        norm.weight.data.add_(1)
        kept.put_back()
        assert norm.weight.tolist() == [1, 1]

    def test_a_correction_that_writes_in_place_is_found_out(self, monkeypatch):
        def in_place(operator, bias):
            operator.bias.data.copy_(bias)

        monkeypatch.setattr("embedl_deploy.quantize.accuracy.matched_means.set_bias", in_place)
        with pytest.raises(QuantizationError, match="This is a fault of the correction"):
            quantized(layer([7.0, 1.4]), [rows([1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [4.0, 1.0])], bias_correction=True)

    def test_parts_are_put_back(self):
        inner = nn.Linear(2, 2)
        model = nn.Sequential(inner)
        kept = Kept(model)
        model[0] = nn.Linear(2, 3)
        kept.put_back()
        assert model[0] is inner


def test_kept_puts_everything_back():
    norm = nn.BatchNorm1d(2)
    weight, mean = norm.weight, norm.running_mean
    kept = Kept(norm)
    for _ in range(2):
        norm.weight = nn.Parameter(torch.zeros(2))
        norm.bias.data = torch.ones(2)
        norm.running_mean.add_(3)
        norm.running_var = torch.zeros(2)
        kept.put_back()
        assert norm.weight is weight and norm.running_mean is mean
        assert norm.weight.tolist() == [1, 1] and norm.bias.tolist() == [0, 0]
        assert norm.running_mean.tolist() == [0, 0] and norm.running_var.tolist() == [1, 1]
