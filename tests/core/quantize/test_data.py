"""Calibration data in every form in which people have it."""

import io

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from embedl_deploy import transform
from embedl_deploy.errors import FusedModuleError, InputError, QuantizationError
from embedl_deploy.modules import FusedConv
from embedl_deploy.patterns import Pattern, QDQPoint
from embedl_deploy.quantize import IntegerWeight, calibrate, insert_qdq, quantize
from embedl_deploy.quantize.calibration.data import as_call, check_data, number_of_inputs, run_data
from embedl_deploy.quantize.calibration.progress import progress_bar
from support.nets import net, random_input
from support.quantizable import ROWS, fused, inserted, perceptron, scales_of

LABELS = torch.arange(6)


def run_batch(model, batch):
    args, kwargs = as_call(model, batch)
    return model(*args, **kwargs)


def two_inputs():
    return net(lambda self, x, y: self.a(x) + self.b(y), a=nn.Linear(12, 4), b=nn.Linear(12, 4))


def loop(model):
    for rows in ROWS.split(4):
        model(rows)


FORMS = {
    "tensors": list(ROWS.split(4)),
    "one tensor": [ROWS],
    "a generator": None,
    "tuples with labels": list(zip(ROWS.split(2), LABELS.split(2), strict=True)),
    "lists": [[ROWS, LABELS]],
    "dictionaries": [{"x": rows} for rows in ROWS.split(3)],
    "a function": loop,
    "a loader": DataLoader(TensorDataset(ROWS), batch_size=4),
    "a shuffled loader with labels": DataLoader(TensorDataset(ROWS, LABELS), batch_size=2, shuffle=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_give_the_same_scales(form):
    wanted = inserted(perceptron())
    calibrate(wanted, [ROWS])
    model = inserted(perceptron())
    calibrate(model, (rows for rows in ROWS.split(1)) if form == "a generator" else FORMS[form])
    for path, scale in scales_of(wanted).items():
        torch.testing.assert_close(scales_of(model)[path], scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "batch", [(ROWS, ROWS * 2), [ROWS, ROWS * 2], (ROWS, ROWS * 2, LABELS), {"y": ROWS * 2, "x": ROWS}], ids=repr
)
def test_several_inputs(batch):
    model = inserted(two_inputs())
    calibrate(model, [batch])
    scales = scales_of(model)
    torch.testing.assert_close(scales["y_quant.quantizer"], scales["x_quant.quantizer"] * 2)


def test_a_tuple_is_cut_to_the_inputs_of_a_graph_alone():
    assert number_of_inputs(fused(two_inputs()).model) == 2
    assert number_of_inputs(two_inputs()) is None
    torch.testing.assert_close(run_batch(two_inputs(), (ROWS, ROWS)), two_inputs()(ROWS, ROWS))
    with pytest.raises(TypeError):
        run_batch(perceptron(), (ROWS, LABELS))


def test_values_that_are_no_tensors_are_passed_on():
    model = fused(net(lambda self, x, y: self.fc(x) * y, fc=nn.Linear(12, 4))).model
    torch.testing.assert_close(run_batch(model, (ROWS, 3.0)), run_batch(model, (ROWS, 1.0)) * 3)


@pytest.mark.parametrize("data", [ROWS, {"x": ROWS}, "rows", 3], ids=["tensor", "dictionary", "string", "number"])
def test_what_is_no_data_is_refused(data):
    with pytest.raises(InputError, match=r"Calibration data is .*; expected a function"):
        check_data(data)
    model = inserted(perceptron())
    with pytest.raises(
        InputError, match=r"calibrate: (data is .*; expected a function, an iterable or None)|Calibration data is"
    ):
        calibrate(model, data)


@pytest.mark.parametrize("batch", [3, "x", None], ids=repr)
def test_what_is_no_batch_is_refused(batch):
    with pytest.raises(
        InputError, match=f"Batch 1 of the calibration data cannot be used: it is {batch!r}; expected a tensor"
    ):
        calibrate(inserted(perceptron()), [batch])


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.ones(2, 5), ["float32[2, 5]", "x is a tensor, float32[2, 5]; expected float32[N, 12]"]),
        (torch.ones(2, 12, dtype=torch.int64), ["x is a tensor, int64[2, 12]; expected float32[N, 12]"]),
        (torch.ones(2, 12, device="meta"), ["on meta", "makes the model raise"]),
        (
            {"y": ROWS},
            ["The model takes the inputs (x)", "missing: x", "unknown: y. Use the model's own names, x in place of y"],
        ),
        ({"x": ROWS, "label": LABELS}, ["it holds 'label'", "(x). Pass the batches without it", "for name in ('x',)}"]),
        ([ROWS.numpy()], ["input 1 of 1 is a NumPy array, float32", "torch.from_numpy"]),
        ({"x": ROWS.numpy()}, ["input 'x' is a NumPy array, float32"]),
        (ROWS.numpy(), ["is a NumPy array, float32"]),
        ((), ["missing: x. Give x as well"]),
        ({3: ROWS}, ["it is {3: a tensor"]),
    ],
    ids=[
        "shape",
        "dtype",
        "device",
        "keys",
        "a label",
        "array",
        "named array",
        "whole array",
        "no inputs",
        "keys that are no names",
    ],
)
@pytest.mark.parametrize("options", [{}, {"smooth_quant": True}], ids=["", "smooth_quant"])
def test_a_batch_that_does_not_fit_is_told_with_its_number(batch, words, options):
    result = transform(perceptron(), ROWS, patterns=fused(perceptron()).report.plan.patterns)
    with pytest.raises((InputError, QuantizationError)) as caught:
        quantize(result, [ROWS, batch], **options)
    assert "Batch 2 of the calibration data" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_fused_module_that_is_wrong_is_still_told_as_that(monkeypatch):
    result = fused(perceptron())
    model = insert_qdq(result.model)
    monkeypatch.setattr(type(model.first), "forward", lambda self, x: x.no_such_thing)
    with pytest.raises(FusedModuleError, match="no_such_thing"):
        calibrate(model, [ROWS])


def test_data_runs_without_gradients():
    seen = []
    run_data(perceptron(), lambda model: seen.append(model(ROWS).requires_grad), progress=False)
    run_data(net(lambda self, x: seen.append(self.fc(x).requires_grad), fc=nn.Linear(12, 4)), [ROWS], progress=False)
    assert seen == [False, False]
    assert torch.is_grad_enabled()


def test_no_batches_are_an_error():
    with pytest.raises(QuantizationError, match="it has no batch"):
        run_data(perceptron(), [], progress=False)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class TestProgress:
    @pytest.mark.parametrize("shown", [False, True])
    def test_shows_nothing_where_there_is_no_terminal(self, shown, capsys):
        with progress_bar("calibrating", [1, 2], shown=shown) as batches:
            assert list(batches) == [1, 2]
        calibrate(inserted(perceptron()), [ROWS], progress=shown)
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("shown", [False, True])
    def test_is_shown_on_a_terminal_if_wanted(self, shown, monkeypatch):
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        calibrate(inserted(perceptron()), (rows for rows in ROWS.split(2)), progress=shown)
        assert ("calibrating" in terminal.getvalue()) is shown

    def test_goes_away_when_a_batch_fails(self):
        with pytest.raises(InputError), progress_bar("calibrating", [1], shown=True) as batches:
            for batch in batches:
                run_batch(perceptron(), batch)


class TestQuantize:
    """The same data, in one call."""

    @pytest.mark.parametrize(
        "arguments",
        [{"data": [ROWS]}, {"forward_loop": loop}, {"args": ROWS}, {"args": (ROWS,)}, {"data": loop}],
        ids=["data", "forward_loop", "args", "a tuple of args", "a function"],
    )
    @pytest.mark.parametrize("whole", [True, False], ids=["result", "its model"])
    def test_is_insertion_and_calibration(self, arguments, whole):
        result = fused(perceptron())
        model = quantize(result if whole else result.model, **arguments)
        wanted = inserted(perceptron())
        calibrate(wanted, [ROWS])
        torch.testing.assert_close(model(ROWS), wanted(ROWS))
        assert not scales_of(result.model)

    def test_may_freeze(self):
        model = quantize(fused(perceptron()), [ROWS], freeze_weights=True)
        assert {path for path, part in model.named_modules() if isinstance(part, IntegerWeight)} == {
            "first.weight_fake_quant.quantizer",
            "second.weight_fake_quant.quantizer",
        }

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"model": perceptron(), "data": [ROWS]},
                "quantize: model is a module of class OneInput; expected",
            ),
            ({}, "quantize needs calibration data"),
            ({"data": [ROWS], "forward_loop": loop}, "quantize was given data and forward_loop: expected one source"),
            ({"data": [ROWS], "args": ROWS}, "quantize was given data and args: expected one source"),
            ({"data": ROWS}, r"quantize: data is a tensor, float32\[6, 12\]; expected a function, an iterable or None"),
        ],
        ids=["no graph", "no data", "data twice", "data and args", "a tensor"],
    )
    def test_wrong_arguments(self, arguments, message):
        with pytest.raises(InputError, match=message):
            quantize(**{"model": fused(perceptron()), **arguments})


def test_inputs_are_moved_to_the_models_device():
    model = net(lambda self, x: self.fc(x), fc=nn.Linear(12, 4)).to("meta")
    assert run_batch(model, random_input(2, 12)).device.type == "meta"
    assert run_batch(model, {"x": random_input(2, 12)}).device.type == "meta"


class Picky(FusedConv):
    """Takes three channels, as the original does, and no batch of one."""

    inputs_to_quantize = frozenset({0})

    def forward(self, x):
        if x.shape[0] == 1:
            raise RuntimeError("a batch of one")
        return self.convolve(x)


class PickyPattern(Pattern):
    tree = (nn.Conv2d,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = Picky


@pytest.mark.parametrize("example", [None, torch.ones(2, 3, 4, 4)], ids=["none", "example inputs"])
def test_whose_fault_a_batch_is_that_a_fused_module_refuses(example):
    result = transform(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), example, patterns=[PickyPattern()])
    words = "cannot be used: Sequential cannot be run on the inputs" if example is None else "does not fit the model"
    with pytest.raises(InputError, match=rf"Batch 2 of the calibration data.*{words}.*to have 3 channels") as said:
        quantize(result, [torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)], progress=False)
    assert "report it" not in str(said.value)
    for size in (4, 5):  # also where the batch is not like the example inputs, but the original takes it
        with pytest.raises(FusedModuleError, match="raised RuntimeError: a batch of one"):
            quantize(result, [torch.randn(1, 3, size, size)], progress=False)
