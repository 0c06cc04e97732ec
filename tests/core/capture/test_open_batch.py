"""What torch.export leaves open of a model's inputs, and what it says about the rest."""

import re

import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import CaptureError, ExportError, InputError
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import quantize
from support.nets import random_input, scrambled
from support.small_patterns import PATTERNS


class Model(nn.Module):
    """Computes ``function`` of what its layer gives."""

    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(4, 4), function

    def forward(self, x):
        return self.function(self.fc(x))


def doubled_for(asks):
    return Model(lambda y: y * 2 if asks(y.shape[0]) else y)


def exported(model, x, **options):
    return transform(model, x, trace="export", patterns=PATTERNS, **options)


def notes_of(result):
    return " ".join(result.report.plan.notes)


@pytest.mark.parametrize("example", [1, 2, 3])
def test_a_model_that_does_not_ask_takes_any_batch(example):
    result = exported(Model(lambda y: y.reshape(y.shape[0], 2, 2).flatten(1).relu()), random_input(example, 4))
    assert not notes_of(result)
    for batch in (1, 2, 7):
        assert result.verify(random_input(batch, 4)).max_rel < 1e-6
    quantized = quantize(
        transform(result.model, backend="tensorrt"), [random_input(5, 4), random_input(2, 4)], progress=False
    )
    assert quantized(random_input(9, 4)).shape == (9, 4)


def test_the_example_is_not_marked():
    x, y = random_input(2, 4), random_input(2, 4)
    model = Model(torch.relu)
    exported(model, x)
    exported(model, y, dynamic_shapes={"x": {0: Dim("batch")}})
    assert not vars(x) and not vars(y)


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (Model(lambda y: y.reshape(3, 2, 2)), 3),
        (doubled_for(lambda n: n == 3), 3),
        (Model(lambda y: torch.stack(list(y))), 3),
        (doubled_for(lambda n: int(n) == 5), 3),
    ],
)
def test_the_line_that_needs_the_batch_as_a_number_is_named(model, example):
    result = exported(model, random_input(example, 4))
    here = rf"dimension 0 of x is fixed to {example}, at {re.escape(__file__)}:\d+ \(.+\)"
    assert re.search(here, notes_of(result))
    assert result.verify(random_input(example, 4)).max_rel < 1e-6
    with pytest.raises(InputError, match=r"size\(\)\[0\] == \d+ does not hold.*dynamic_shapes"):
        result.model(random_input(example + 1, 4))


def test_a_branch_for_the_example_alone():
    result = exported(doubled_for(lambda n: n == 2), random_input(1, 4))  # an open size is traced as two
    assert re.search(r"batch is fixed to that of the example.*dimension 0 of x is fixed to 1, at ", notes_of(result))
    assert result.verify(random_input(1, 4)).max_rel < 1e-6


@pytest.mark.parametrize("options", [{}, {"dynamic_shapes": {"x": {0: Dim("batch")}}}])
def test_ones_are_refused_where_the_model_takes_another_branch(options):
    model = Model(lambda y: y.squeeze() if y.squeeze().dim() == 2 else 2 * y.squeeze())
    result = exported(model, random_input(3, 4), **options)
    assert result.verify(random_input(2, 4)).max_rel < 1e-6
    with pytest.raises(InputError, match=r"computes something else where it is 1"):
        result.verify(random_input(1, 4))


def test_ones_in_the_example_have_the_graph_of_ones():
    model = Model(lambda y: y.squeeze() if y.squeeze().dim() == 2 else 2 * y.squeeze())
    result = exported(model, random_input(1, 4))
    assert "the batch is fixed to that of the example inputs" in notes_of(result)
    assert result.verify(random_input(1, 4)).max_rel < 1e-6


def test_beside_a_batch_a_size_of_one_is_none():
    class Scaled(nn.Module):
        def forward(self, x, scale):
            return x * scale

    model, scale = Scaled(), random_input(1, 4)
    result = transform(model, (random_input(3, 4), scale), patterns=PATTERNS, trace="export")
    assert result.report["notes"] == []
    for batch in (1, 5):
        assert result.verify(random_input(batch, 4), scale).max_rel < 1e-6
    with pytest.raises(InputError, match="scale"):
        result.model(random_input(3, 4), random_input(3, 4))
    both = transform(model, (random_input(1, 4), scale), patterns=PATTERNS, trace="export")
    assert both.verify(random_input(5, 4), random_input(5, 4)).max_rel < 1e-6


def test_dimensions_that_are_not_the_batch():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x, scale=None):
            y = self.conv(x)
            y = y.reshape(y.shape[0], y.shape[1], y.shape[2] * y.shape[3]).mean(-1)
            return self.fc(y) if scale is None else self.fc(y) * scale

    x, model = random_input(1, 3, 8, 8), scrambled(Pooled()).eval()
    sizes = {"x": {0: Dim("batch", max=4), 2: Dim("height", min=4, max=64), 3: Dim("width", min=4)}}
    result = exported(model, x, dynamic_shapes=sizes)
    for size in ((1, 3, 5, 5), (4, 3, 30, 9)):
        assert result.verify(random_input(*size)).max_rel < 1e-5
    with pytest.raises(InputError, match=r"size\(\)\[2\] <= 64 does not hold"):
        result.model(random_input(1, 3, 65, 8))


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_a_file_has_the_open_dimensions_that_were_asked_for(trace, tmp_path):
    sizes = {"x": {0: Dim("batch"), 1: Dim("length", max=64)}}
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4)).eval()
    result = transform(
        model, random_input(1, 5, 4), patterns=PATTERNS, trace=trace, dynamic_shapes={"input": sizes["x"]}
    )

    def shape_of(**options):
        written = export_onnx(result, random_input(1, 5, 4), tmp_path / "m.onnx", **options)
        session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
        x = random_input(*[size if isinstance(size, int) else 7 for size in session.get_inputs()[0].shape])
        found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
        torch.testing.assert_close(found, model(x).detach(), rtol=1e-4, atol=1e-5)
        return session.get_inputs()[0].shape

    assert shape_of() == ["batch", "length", 4]
    assert export_onnx(result, random_input(1, 5, 4), tmp_path / "m.onnx").shapes == {
        "input": ((1, 1, 4), (1, 5, 4), (1, 64, 4))
    }
    assert shape_of(dynamic_shapes={}) == [1, 5, 4]
    assert shape_of(dynamic_shapes={}, dynamic_batch=True) == ["batch", 5, 4]
    assert shape_of(dynamic_shapes={"input": {1: Dim("steps")}}) == [1, "steps", 4]


def test_a_named_dimension_beside_a_tuple_of_tensors(tmp_path):
    """As of a cache, beside what an encoder has given."""

    class Decoder(nn.Module):
        def forward(self, states, cache):
            return states[0].mean() + cache[0] * 2, cache[1] + 1

    inputs = {"states": (random_input(2, 4),), "cache": [random_input(2, 3), random_input(2, 3)]}
    past = {"cache": [{1: Dim("past", min=2, max=9)}] * 2}
    result = transform(Decoder(), kwargs=inputs, patterns=PATTERNS, trace="export", dynamic_shapes=past)
    written = export_onnx(result, (), tmp_path / "m.onnx", kwargs=inputs)
    assert written.shapes == dict.fromkeys(("cache.0", "cache.1"), ((2, 2), (2, 3), (2, 9)))
    x, y = random_input(2, 7), random_input(2, 7)
    first, second = run_onnx(written.path, inputs["states"][0], x, y)
    torch.testing.assert_close(first, inputs["states"][0].mean() + x * 2)
    torch.testing.assert_close(second, y + 1)


def test_a_file_that_would_be_wrong_for_other_lengths_is_refused(tmp_path):
    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) if x.shape[1] < 8 else x

    with pytest.raises(ExportError, match=r"every size of length. With 11 it does not compute|does not compute what"):
        export_onnx(
            Asking().eval(), random_input(1, 5, 4), tmp_path / "m.onnx", dynamic_shapes={"x": {1: Dim("length")}}
        )


def test_what_cannot_be_open_is_told_with_the_reason():
    with pytest.raises(
        CaptureError,
        match=r"(?s)the model's code fixes 'batch' to 3 \(UserError: Constraints violated.*number at .*test_open",
    ):
        exported(Model(lambda y: y.reshape(3, 2, 2)), random_input(3, 4), dynamic_shapes={"x": {0: Dim("batch")}})


def test_it_needs_example_inputs():
    with pytest.raises(InputError, match="dynamic_shapes needs example inputs"):
        transform(nn.Linear(4, 4), patterns=PATTERNS, dynamic_shapes={"input": {0: Dim("batch")}})


def test_what_is_open_in_a_program_is_open_in_its_file(tmp_path):
    sizes = ({0: Dim("batch"), 1: Dim("length", max=64)},)
    program = torch.export.export(nn.Linear(4, 4).eval(), (random_input(2, 5, 4),), dynamic_shapes=sizes)
    result = transform(program, random_input(2, 5, 4), patterns=PATTERNS)
    written = export_onnx(result, random_input(2, 5, 4), tmp_path / "m.onnx")
    assert written.shapes == {"input": ((1, 1, 4), (2, 5, 4), (2, 64, 4))}
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    assert session.run(None, {"input": random_input(3, 9, 4).numpy()})[0].shape == (3, 9, 4)


def test_sizes_that_a_file_is_not_for_are_told(tmp_path):
    class Short(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) if x.shape[1] + 1 < 9 else x

    x = random_input(1, 5, 4)
    result = exported(Short().eval(), x, dynamic_shapes={"x": {1: Dim.AUTO}})
    written = export_onnx(result, x, tmp_path / "m.onnx")
    assert written.shapes == {"x": ((1, 1, 4), (1, 5, 4), (1, 7, 4))}
    assert "the file is valid only for sizes 1 to 7 of dimension 1 of 'x'" in " ".join(written.notes)
    with pytest.raises(InputError, match=r"size\(\)\[1\] .* does not hold"):
        result.model(random_input(1, 8, 4))
