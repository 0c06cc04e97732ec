"""What calibration notices reaches the user: in the report, and the serious part in one line of the log."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize import (
    CalibrationMethod,
    Precision,
    QuantConfig,
    TensorQuantConfig,
    calibrate,
    insert_qdq,
    quantization_report,
    quantize,
)
from embedl_deploy.quantize.grid.factory import make_observer
from embedl_deploy.quantize.grid.samples import Samples, extremes_by_sample
from support.nets import net, random_input
from support.small_patterns import QUANTIZABLE

X = random_input(2, 4)


def model():
    return net(lambda m, x: m.second(torch.relu(m.first(x))), first=nn.Linear(4, 4), second=nn.Linear(4, 4))


def inserted(method=CalibrationMethod.MINMAX):
    result = transform(model(), patterns=QUANTIZABLE)
    return insert_qdq(
        result.model, result.matches, QuantConfig(activation=TensorQuantConfig(calibration_method=method))
    )


def noticed(quantized, data, caplog):
    with caplog.at_level(logging.WARNING, "embedl_deploy"):
        calibrate(quantized, data, progress=False)
    return {finding.tensor: finding.what for finding in quantization_report(quantized).findings}


def test_ordinary_data_is_not_worth_a_word(caplog):
    assert noticed(inserted(), [X, 3 * X, X / 3, X, X], caplog) == {} and not caplog.messages
    assert "Noticed" not in str(quantization_report(inserted()))


@pytest.mark.parametrize("method", CalibrationMethod)
@pytest.mark.parametrize(("value", "what"), [(0.0, "zero everywhere"), (2.5, "2.5 everywhere")])
def test_one_value_throughout(value, what, method, caplog):
    quantized = inserted(method)
    found = noticed(quantized, [torch.full_like(X, value)] * 2, caplog)
    assert found["the output of x"].startswith(f"{what} in all calibration data")
    assert f"the output of x: {what}" in str(quantization_report(quantized))
    (message,) = caplog.messages
    assert message.startswith("calibration data that may not be representative: the output of x: ")


def test_a_dead_layer(caplog):
    quantized = inserted()
    with torch.no_grad():
        quantized.first.linear.bias.fill_(-1e3)
    (message,) = [noticed(quantized, [X, X], caplog)] and caplog.messages
    assert "the output of first_1: zero everywhere" in message


@pytest.mark.parametrize("method", [m for m in CalibrationMethod if m is not CalibrationMethod.MOVING_AVERAGE])
def test_a_batch_far_from_all_others_whose_scale_it_is(method, caplog):
    quantized = inserted(method)
    found = noticed(quantized, [X, X, X, 1000 * X, X], caplog)
    # 1000 × the largest of the others; eight bits leave those less than one step
    assert found["the output of x"].startswith("batch 4 of 5 reaches") and "its scale is that of one batch" in str(
        found
    )


@pytest.mark.parametrize(("at", "said"), [(0, "its scale is that of one batch"), (3, "what is beyond is clipped")])
def test_a_batch_far_from_all_others_in_an_average(at, said, caplog):
    data = [X] * 4
    data[at] = 100 * X  # the last moves the average by a hundredth of it, to twice the others
    found = noticed(inserted(CalibrationMethod.MOVING_AVERAGE), data, caplog)
    assert found["the output of x"].startswith(f"batch {at + 1} of 4 reaches")
    assert said in found["the output of x"]


def observed(values, config):
    observer = make_observer(config, "it", is_weight=False)
    observer.observe(values)
    return observer.finding(observer.grid())


def test_a_softmax_over_a_single_key_is_no_sign_of_other_data():
    for value, serious in ((1.0, False), (0.5, True)):
        observer = make_observer(TensorQuantConfig(), "it", is_weight=False, amax=1.0)
        observer.observe(torch.full((2, 3), value))
        finding = observer.finding(observer.grid())
        assert f"{value:g} everywhere" in finding.what and finding.serious is serious


def test_what_is_clipped_is_told_with_what_it_leaves():
    # 10 of 1000 values are 10, the others 1: a scale for 1 loses 10 · 9² of 10 · 10² + 990, which leaves 3.9 dB.
    values = torch.cat([torch.ones(990), -10 * torch.ones(10)])
    config = TensorQuantConfig(calibration_method=CalibrationMethod.PERCENTILE, percentile=98.5)
    said = str(observed(values, config))
    assert said.startswith("it: 1.00% of its values are clipped, which alone leaves 3.9 dB of it: it reaches 10,")
    assert observed(values, replace(config, percentile=100.0)) is None


@pytest.mark.parametrize("method", CalibrationMethod)
def test_clipping_of_ordinary_tails_is_not_told(method):
    torch.manual_seed(0)
    config = TensorQuantConfig(calibration_method=method)
    for values in (torch.randn(20_000), torch.relu(torch.randn(20_000)), -torch.rand(20_000).log()):
        assert observed(values, config) is None


@pytest.mark.parametrize(("batches", "told"), [([X] * 4, False), ([X, X, X], True), ([X], False)])
def test_a_batch_far_from_all_others(batches, told, caplog):
    quantized = inserted()
    found = noticed(quantized, [*batches[:2], 1000 * X if told else 5 * X, *batches[2:]], caplog)
    assert ("the output of x" in found) == told
    assert not told or found["the output of x"].startswith("batch 3 of 4 reaches")


ORDINARY = torch.Generator().manual_seed(0)


def batches(count, spoiled=(), size=4):
    data = [torch.randn(size, 4, generator=ORDINARY) for _ in range(count)]
    return [1000 * batch if place in spoiled else batch for place, batch in enumerate(data)]


def with_outliers(data):
    for batch in data:
        batch[0, 0] = 3000.0
    return data


@pytest.mark.parametrize(
    ("data", "share"),
    [
        (batches(20, {3, 4}), 90),
        (batches(3, {1}), 67),
        (with_outliers(batches(8)), 75),
        ([torch.cat([*batches(16), *batches(1, {0}, 1)])], 98),
        (batches(20, {3, 4}, 1), 90),
    ],
    ids=["two batches of twenty", "one of three", "one value in each", "a row of one batch", "batches of one"],
)
@pytest.mark.parametrize("method", [CalibrationMethod.MINMAX, CalibrationMethod.MSE])
def test_samples_that_others_dwarf(data, share, method, caplog):
    found = noticed(inserted(method), data, caplog)["the output of x"]
    assert found.startswith(f"{share}% of its samples reach less than 2 steps of its scale")


def test_samples_that_a_clipping_scale_holds_are_not_told(caplog):
    config = TensorQuantConfig(calibration_method=CalibrationMethod.PERCENTILE, percentile=99.0)
    observer = make_observer(config, "it", is_weight=False)
    for batch in batches(200, {3}):
        observer.observe(batch)
    assert "samples" not in str(observer.finding(observer.grid()))


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4, Precision.FP8])
@pytest.mark.parametrize(
    "values",
    [
        lambda: torch.relu(torch.randn(64, 100)),
        lambda: nn.functional.gelu(torch.randn(64, 100)),
        lambda: (8 * torch.randn(64, 100)).softmax(-1),
        lambda: torch.randn(64, 100) * (torch.rand(64, 100) < 0.03),
        lambda: torch.randn(64, 100) * torch.tensor([1.0] * 99 + [300.0]),
        lambda: torch.randn(64, 100) * torch.randn(64, 1).clamp(-2, 2).exp(),
        lambda: torch.zeros(64, 100).index_fill(0, torch.tensor([3, 4]), 1.0) * torch.rand(64, 100),
    ],
    ids=["ReLU", "GELU", "softmax", "sparse", "outlier channel", "samples of many sizes", "padding"],
)
def test_what_no_sample_dwarfs(values, precision):
    torch.manual_seed(0)
    assert observed(values(), TensorQuantConfig(precision)) is None


def test_shares_of_samples_do_not_depend_on_how_they_are_split():
    samples = [Samples(), Samples()]
    reaches = np.array([0.0, 1.0, 0.5, 3.0, 100.0])
    samples[0].add(reaches)
    for reach in reaches[::-1]:
        samples[1].add(reach.reshape(1))
    # of four that are not zero; 0.5 and 1 are below 2
    assert [each.share_below(2.0) for each in samples] == [0.5, 0.5]
    assert samples[0].share_below(1000.0) == 1.0 and samples[0].share_below(0.0) == 0.0
    assert samples[0].median() == samples[1].median() == pytest.approx(1.0, rel=0.1)
    assert Samples().share_below(1.0) == Samples().median() == 0.0


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4, 5)])
def test_extremes_by_sample(shape):
    x = torch.randn(shape)
    rows = x.reshape(1, -1) if x.dim() == 1 else x.flatten(1)
    for given in (x, x.to(memory_format=torch.channels_last) if x.dim() == 4 else x):
        low, high = extremes_by_sample(given)
        assert torch.equal(low, rows.amin(1)) and torch.equal(high, rows.amax(1))


def test_a_pruned_channel_is_reported_and_no_warning(caplog):
    quantized = inserted()
    with torch.no_grad():
        quantized.second.linear.weight[1] = 0
    assert noticed(quantized, [X], caplog) == {"second weight": "zero, in whole or in some channel or block"}
    assert not caplog.messages


def test_a_second_calibration_forgets(caplog):
    quantized = inserted()
    assert noticed(quantized, [torch.zeros_like(X)], caplog) and not noticed(quantized, [X], caplog)


def test_tensors_that_are_shared_no_longer():
    tied = model()
    tied.second.weight = tied.first.weight
    result = transform(tied, patterns=QUANTIZABLE)
    (finding,) = quantization_report(quantize(result, [X], learned_rounding=True, progress=False)).findings
    assert str(finding).startswith("second.linear.weight: one tensor with first.linear.weight before")
    assert quantization_report(quantize(result, [X], progress=False)).findings == ()


class TestNotANumber:
    """In the model's own tensors: no data can mend it, and the message says so."""

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("name", ["first.weight", "second.bias"])
    @pytest.mark.parametrize("methods", [{}, {"equalization": True, "smooth_quant": 0.5}], ids=["plain", "smoothed"])
    def test_in_what_is_quantized(self, name, value, methods):
        broken = model()
        broken.get_parameter(name).data.view(-1)[1] = value
        result = transform(broken, patterns=QUANTIZABLE)
        layer, _, tensor = name.partition(".")
        with pytest.raises(QuantizationError, match=r"The model itself contains NaN or infinity") as caught:
            quantize(result, [X], progress=False, **methods)
        assert f"'{layer}.linear.{tensor}' (1 of {broken.get_parameter(name).numel()} values)" in str(caught.value)
        with pytest.raises(QuantizationError, match=r"The model itself contains NaN"):
            calibrate(insert_qdq(result.model, result.matches), [X], progress=False)

    def test_in_what_is_not(self):
        broken = net(lambda m, x: m.fc(m.norm(x) + m.shift), norm=nn.LayerNorm(4), fc=nn.Linear(4, 4))
        broken.register_buffer("shift", torch.full((4,), float("nan")))
        result = transform(broken, patterns=QUANTIZABLE)
        message = r"8 of .* in batch 1 are NaN or infinite.*The model itself contains such values: 'shift' \(4 of 4"
        with pytest.raises(QuantizationError, match=message):
            quantize(result, [X], progress=False)

    def test_in_the_data_alone(self):
        with pytest.raises(QuantizationError, match="8 of 8 values in batch 1 are NaN") as caught:
            quantize(transform(model(), patterns=QUANTIZABLE), [X * float("nan")], progress=False)
        assert "The model itself" not in str(caught.value)

    def test_a_mask_may_be_infinite(self):
        masked = net(lambda m, x: m.fc((x + m.mask).softmax(-1)), fc=nn.Linear(4, 4))
        masked.register_buffer("mask", torch.tensor([0.0, 0.0, float("-inf"), 0.0]))
        quantize(transform(masked, patterns=QUANTIZABLE), [X], progress=False)
