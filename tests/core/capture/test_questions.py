"""What a model asks about its values while it is traced: the answer is true, or the trace ends."""

import math
from collections import namedtuple
from collections.abc import Iterable
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.capture import Trace
from embedl_deploy.errors import CaptureError, InputError
from support.nets import net, random_input
from support.small_patterns import PATTERNS

X = random_input(3, 8)


def made_of(forward):
    """A model that returns ``m.a(x)`` where the answer is right, and ``m.b(x)`` where it is not."""
    return net(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 8))


def _number_or_none(value):
    try:
        return int(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _length_or_none(value):
    try:
        return len(value)
    except (TypeError, RuntimeError):
        return None


def _two_sizes(sizes):
    match sizes:
        case (_, _):
            return True
    return False


TRUE_OF_A_TENSOR = {
    "isinstance": lambda m, x: m.a(x) if isinstance(x, torch.Tensor) else m.b(x),
    "isinstance_of_several": lambda m, x: m.b(x) if isinstance(x, (list, tuple, dict)) else m.a(x),
    "isinstance_parameter": lambda m, x: m.b(x) if isinstance(x, nn.Parameter) else m.a(x),
    "class": lambda m, x: m.a(x) if x.__class__ is torch.Tensor else m.b(x),
    "type": lambda m, x: m.a(x) if type(x) is torch.Tensor else m.b(x),
    "subclass": lambda m, x: m.a(x) if issubclass(type(x), torch.Tensor) else m.b(x),
    "callable": lambda m, x: m.b(x) if callable(x) else m.a(x),
    "hasattr": lambda m, x: m.b(x) if hasattr(x, "tensors") else m.a(x),
    "hasattr_that_is_there": lambda m, x: m.a(x) if hasattr(x, "shape") else m.b(x),
    "getattr_with_default": lambda m, x: m.a(x) if getattr(x, "mask", None) is None else m.b(x),
    "is_tensor": lambda m, x: m.a(x) if torch.is_tensor(x) else m.b(x),
}
OF_COMPUTED_VALUES = {
    "isinstance": lambda m, x: m.a(x) if isinstance(F.relu(x), torch.Tensor) else m.b(x),
    "size": lambda m, x: m.a(x) if isinstance(x.shape[1], int) else m.b(x),
    "shape": lambda m, x: m.a(x) if isinstance(x.shape, tuple) else m.b(x),
    "type_of_size": lambda m, x: m.a(x) if type(x.size(1)) is int else m.b(x),
    "parameter": lambda m, x: m.a(x) if isinstance(m.a.weight, nn.Parameter) else m.b(x),
}
#: With example inputs the text is known.
ASKING_FOR_TEXT = {
    "str": lambda m, x: m.a(x) if "cpu" in str(x.device) else m.b(x),
    "format": lambda m, x: m.a(x) if len(f"{x.dtype}") == 13 else m.b(x),
    "format_with_specification": lambda m, x: m.a(x) if f"{x.shape[1]:>3}" == "  8" else m.b(x),
    "repr": lambda m, x: m.a(x) if repr(x.dtype) == "torch.float32" else m.b(x),
    "percent": lambda m, x: m.a(x) if "%s" % x.device == "cpu" else m.b(x),  # noqa: UP031 - as people write it
}
STOPPING = {
    "dtype_as_key": lambda m, x: m.a(x) if {torch.float32: 2}.get(x.dtype, 1) == 2 else m.b(x),
    "dtype_by_identity": lambda m, x: m.a(x) if x.dtype is torch.float32 else m.b(x),
    "dtype_by_identity_turned": lambda m, x: m.a(x) if torch.float32 is x.dtype else m.b(x),
    "caught_int": lambda m, x: m.b(x) if _number_or_none(x.shape[1]) is None else m.a(x),
    "caught_len": lambda m, x: m.b(x) if _length_or_none(x) is None else m.a(x),
    "iterable": lambda m, x: m.a(torch.stack(list(x))) if isinstance(x, Iterable) else m.b(x),
    "float": lambda m, x: m.a(x) * math.floor(float(x.shape[1])) / 8,
    "in": lambda m, x: m.a(x) if 8 in x.shape else m.b(x),
    "is_cuda": lambda m, x: m.b(x) if x.is_cuda else m.a(x),
    "requires_grad": lambda m, x: m.b(x) if x.requires_grad else m.a(x),
    "match_sequence": lambda m, x: m.a(x) if _two_sizes(x.shape) else m.b(x),
    "random": lambda m, x: m.a(x) + 0 * torch.rand(8),
    "random_in_place": lambda m, x: m.a(x) + 0 * torch.empty(8).normal_(),
}


class TestWithExampleInputs:
    @pytest.mark.parametrize("forward", [*TRUE_OF_A_TENSOR.values(), *OF_COMPUTED_VALUES.values()])
    def test_answers_are_true(self, forward):
        model = made_of(forward)
        result = transform(model, X, patterns=PATTERNS, trace=Trace.SYMBOLIC)
        assert torch.equal(result.model(X), model.a(X))

    @pytest.mark.parametrize("name", STOPPING)
    def test_what_is_not_known_is_left_to_torch_export(self, name):
        model = made_of(STOPPING[name])
        result = transform(model, X, patterns=PATTERNS)
        assert result.report["capture"] == "export"
        assert torch.equal(result.model(X), model.a(X))

    def test_inputs_of_other_classes(self):
        model = made_of(lambda m, xs: m.a(xs["x"]) if isinstance(xs, dict) and not hasattr(xs, "shape") else m.b(xs))
        result = transform(model, ({"x": X},), patterns=PATTERNS, trace=Trace.SYMBOLIC)
        assert torch.equal(result.model({"x": X}), model.a(X))

    @pytest.mark.parametrize("name", ASKING_FOR_TEXT)
    def test_sizes_and_types_as_text_are_those_of_the_example(self, name):
        model = made_of(ASKING_FOR_TEXT[name])
        result = transform(model, X, patterns=PATTERNS, trace=Trace.SYMBOLIC)
        assert torch.equal(result.model(X), model.a(X))
        assert "text that the model formats from values, at " in result.report["notes"][0]

    def test_text_of_numbers_is_not_known(self):
        model = made_of(lambda m, x: m.b(x) if "nan" in str(x) else m.a(x))
        assert transform(model, X, patterns=PATTERNS).report["capture"] == "export"

    def test_text_for_people_is_not_noted(self):
        def forward(m, x):
            torch._assert(
                x.dim() == 2,
                f"expected two dimensions, not {x.shape}",
            )
            return m.a(x)

        assert transform(made_of(forward), patterns=PATTERNS).report["notes"] == []


Pair = namedtuple("Pair", ["x", "mask"])
NONE_IN_AN_INPUT = {
    "get": (lambda m, p: m.a(p["x"]) if p.get("mask") is None else m.b(p["x"]), {"x": X}),
    "value": (lambda m, p: m.a(p["x"]) if p["mask"] is None else m.b(p["x"]), {"x": X, "mask": None}),
    "item": (lambda m, p: m.a(p[0]) if p[1] is None else m.b(p[0]), (X, None)),
    "nested": (lambda m, p: m.a(p["x"][0]) if p["x"][1] is None else m.b(p["x"][0]), {"x": [X, None]}),
    "attribute": (lambda m, p: m.a(p.x) if p.mask is None else m.b(p.x), Pair(X, None)),
}


class TestNoneInAnInput:
    @pytest.mark.parametrize("name", NONE_IN_AN_INPUT)
    def test_is_left_to_torch_export(self, name):
        forward, value = NONE_IN_AN_INPUT[name]
        model = made_of(forward)
        result = transform(model, (value,), patterns=PATTERNS)
        assert result.report["capture"] == "export"
        assert torch.equal(result.model(value), model.a(X))
        with pytest.raises(CaptureError, match=r"is (or may be )?None, which symbolic tracing cannot represent"):
            transform(model, (value,), patterns=PATTERNS, trace="symbolic")

    def test_what_is_there_is_read(self):
        model = made_of(lambda m, p: m.a(p.get("x")) + p.get("shift", 1.0))
        result = transform(model, ({"x": X},), patterns=PATTERNS, trace="symbolic")
        assert torch.equal(result.model({"x": X, "shift": 2.0}), model.a(X) + 2)

    def test_keywords_that_forward_does_not_name(self):
        class Asking(nn.Module):
            def forward(self, x, **more):
                return x if more.get("mask") is None else -x

        with pytest.raises(CaptureError, match="or may be"):
            transform(Asking(), patterns=PATTERNS)
        assert torch.equal(transform(Asking(), X, patterns=PATTERNS).model(X), X)


def test_a_graph_that_does_not_take_what_the_model_takes():
    def forward(m, x):
        return m.a(x)

    with mock.patch("embedl_deploy.capture.ways.propagate_shapes", side_effect=InputError("they do not fit")):
        with pytest.raises(CaptureError, match="does not take the example inputs, and the model does: they do not fit"):
            transform(made_of(forward), X, patterns=PATTERNS, trace="symbolic")
        with pytest.raises(InputError, match="they do not fit"):
            transform(made_of(forward), X[:, :3], patterns=PATTERNS)


class TestWithoutExampleInputs:
    @pytest.mark.parametrize("name", TRUE_OF_A_TENSOR)
    def test_inputs_are_taken_for_tensors_which_is_noted(self, name):
        model = made_of(TRUE_OF_A_TENSOR[name])
        result = transform(model, patterns=PATTERNS)
        assert torch.equal(result.model(X), model.a(X))
        assert "without example inputs, a tensor is assumed" in result.report["notes"][0]

    @pytest.mark.parametrize("name", [name for name in OF_COMPUTED_VALUES if name != "parameter"])
    def test_nothing_is_known_of_computed_values(self, name):
        with pytest.raises(CaptureError, match="is not known in symbolic tracing") as caught:
            transform(made_of(OF_COMPUTED_VALUES[name]), patterns=PATTERNS)
        assert "test_questions.py" in caught.value.source

    @pytest.mark.parametrize("name", [*STOPPING, *ASKING_FOR_TEXT])
    def test_tracing_ends(self, name):
        with pytest.raises(CaptureError, match=r"transform\(model, args="):
            transform(made_of((STOPPING | ASKING_FOR_TEXT)[name]), patterns=PATTERNS)

    def test_whether_gradients_are_computed(self):
        model = made_of(lambda m, x: m.b(x) if torch.is_grad_enabled() else m.a(x))
        asked = torch.is_grad_enabled
        with pytest.raises(CaptureError, match="whether gradients are computed is not known"):
            transform(model, patterns=PATTERNS)
        assert torch.is_grad_enabled is asked
        with torch.no_grad():
            assert torch.equal(transform(model, X, patterns=PATTERNS).model(X), model.a(X))


class TestContexts:
    def test_switching_gradients_off_is_noted(self):
        def forward(m, x):
            with torch.no_grad():
                x = m.a(x)
            return m.b(x)

        assert "disables or enables gradients" in transform(made_of(forward), patterns=PATTERNS).report["notes"][0]

    @pytest.mark.parametrize("name", ["weight", "bias"])
    def test_a_parameter_that_is_written_into_without_gradients(self, name):
        def forward(m, x):
            with torch.no_grad():
                getattr(m.a, name)[:4].mul_(0.5)
            return x @ m.a.weight + m.a.bias

        model = made_of(forward)
        expected = f"'a.{name}' is written to with gradients disabled"
        with pytest.raises(CaptureError, match=expected):
            transform(model, patterns=PATTERNS)
        result = transform(model, X, patterns=PATTERNS)
        assert result.report["capture"] == "export"
        for _ in range(2):  # halved each time, in both, while gradients are on
            torch.testing.assert_close(result.model(X), model(X))

    def test_the_callers_own_context_is_none_of_the_models(self):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert transform(made_of(lambda m, x: m.a(x)), patterns=PATTERNS).report["notes"] == []
