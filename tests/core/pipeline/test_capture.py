"""What can be transformed: models in every form, traced or exported, and what is said of those that cannot."""

import functools
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import (
    Trace,
    transform,
)
from embedl_deploy.errors import CaptureError, InputError
from support.residual_net import ResidualNet
from support.small_patterns import PATTERNS


class TestCapture:
    def test_untraceable_names_line_module_and_advice(self):
        class Inner(nn.Module):
            def forward(self, x):
                if x.sum() > 0:  # the culprit
                    return x
                return -x

        class Outer(nn.Module):
            def __init__(self):
                super().__init__()
                self.stage = nn.Sequential(nn.Identity(), Inner())

            def forward(self, x):
                return self.stage(x)

        with pytest.raises(CaptureError) as caught:
            transform(Outer(), patterns=PATTERNS)
        message = str(caught.value)
        assert caught.value.module_path == "stage.1"
        assert "'stage.1' (Inner)" in message
        assert "test_capture.py" in message
        assert "if x.sum() > 0:  # the culprit" in message
        assert "torch.export" in message
        assert caught.value.source.rpartition(":")[0] == __file__

    def test_falls_back_to_export_with_inputs(self):
        class Steered(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 1)

            def forward(self, x):
                if any(size > 100 for size in x.shape):  # decided by the example
                    return x
                return F.relu(self.conv(x))

        x = torch.randn(1, 4, 5, 5)
        result = transform(Steered().eval(), x, patterns=PATTERNS)
        assert result.report["capture"] == "export"
        assert re.search(
            r"because symbolic tracing failed at .*: TraceError: a loop iterates over", result.report["notes"][0]
        )
        assert result.report["applied_count"] == 1
        assert result.verify(x).max_abs == 0
        with pytest.raises(CaptureError):
            transform(Steered().eval(), x, patterns=PATTERNS, trace=Trace.SYMBOLIC)

    @pytest.mark.parametrize("trace", ["symbolic", "export"])
    def test_inputs_that_do_not_fit_are_that_whatever_captures(self, net, trace):
        with pytest.raises(InputError, match=r"to have 4 channels, but got 3.*Pass inputs"):
            transform(net, torch.randn(2, 3, 8, 8), patterns=PATTERNS, trace=trace)

    def test_both_ways_fail(self):
        class Hopeless(nn.Module):
            def forward(self, x):
                raise RuntimeError("not today")

        with pytest.raises(CaptureError, match=r"(?s)not today.*give example inputs"):
            transform(Hopeless(), patterns=PATTERNS)
        with pytest.raises(CaptureError) as caught:
            transform(Hopeless(), torch.randn(3), patterns=PATTERNS)
        first, code, *rest = str(caught.value).splitlines()
        assert first.startswith(
            "Hopeless itself does not run on the example inputs (float32[3] on cpu): RuntimeError: not today, at "
        )
        assert code == '    raise RuntimeError("not today")'
        assert rest == ["Fix the model, or pass inputs that it accepts; then capture it again."]

    def test_what_stops_torch_export_is_told_first(self):
        """A forward behind a decorator, as those of Hugging Face: that torch.fx does not see it is not the reason."""

        def returning(forward):
            return functools.wraps(forward)(lambda self, *args, **kwargs: forward(self, *args, **kwargs))

        class Inner(nn.Module):
            def forward(self, x):
                return x if x.sum() > 0 else -x  # the culprit

        class Decorated(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            @returning
            def forward(self, x, y=None, z=None, **options):
                return self.inner(x)

        with pytest.raises(CaptureError) as caught:
            transform(Decorated(Inner()), torch.randn(3), patterns=PATTERNS)
        first, code, reason, advice, _, tried = str(caught.value).splitlines()
        assert first.startswith(
            "Decorated cannot be captured by torch.export with (float32[3] on cpu): in module 'inner'"
        )
        assert (code.strip(), caught.value.module_path) == ("return x if x.sum() > 0 else -x  # the culprit", "inner")
        assert "data-dependent" in reason
        assert "torch.where" in advice
        assert tried.startswith(
            "Symbolic tracing, which was tried first, failed: TraceError: forward takes *args or **"
        )
        (note,) = transform(Decorated(nn.ReLU()), torch.randn(3), patterns=PATTERNS).report["notes"]
        assert note.startswith("captured by torch.export, because symbolic tracing failed: TraceError: forward takes")

    def test_what_has_been_given_is_not_asked_for(self):
        class Branching(nn.Module):
            def forward(self, x):
                return x if x.sum() > 0 else -x

        with pytest.raises(CaptureError, match=r"Try one of these:\n  - give example inputs"):
            transform(Branching(), patterns=PATTERNS)
        with pytest.raises(CaptureError, match=r"(?s)Try one of these:\n  - rewrite the line.*also failed"):
            transform(Branching(), torch.randn(3), patterns=PATTERNS)
        with pytest.raises(CaptureError, match=r"(?s)  - rewrite the line.*  - omit trace='symbolic'"):
            transform(Branching(), torch.randn(3), patterns=PATTERNS, trace="symbolic")

    @pytest.mark.parametrize("trace", ["auto", "export"])
    def test_a_wrong_size_is_told_once(self, trace, capfd):
        wrong = nn.Sequential(nn.Linear(4, 8), nn.Linear(4, 2))
        with pytest.raises(InputError, match=r"must have same reduction dim, but got \[2, 8\] X \[4, 2\]"):
            transform(wrong, torch.randn(2, 4), patterns=PATTERNS, trace=trace)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
    def test_a_type_that_does_not_fit_is_told_of_the_first_layer_that_reads_it(self, dtype):
        layers = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 3))
        with pytest.raises(InputError, match=r"does not accept the inputs at '0' \(Conv2d\).*expected scalar type"):
            transform(layers, torch.ones(1, 3, 8, 8, dtype=dtype), patterns=PATTERNS)

    @pytest.mark.parametrize("form", ["module", "symbolic graph", "export program", "export module"])
    def test_forms_of_a_model(self, net, form):
        x = torch.randn(2, 4, 8, 8)
        given = {
            "module": lambda: net,
            "symbolic graph": lambda: torch.fx.symbolic_trace(net),
            "export program": lambda: torch.export.export(net, (x,)),
            "export module": lambda: torch.export.export(net, (x,)).module(),
        }[form]()
        result = transform(given, patterns=PATTERNS)
        assert result.report["applied_count"] == 4
        assert result.verify(x).max_abs == 0

    def test_torchs_own_account_of_a_failure_is_not_printed_as_well(self, capfd):
        class Branching(nn.Module):
            def forward(self, x):
                return x if x.sum() > 0 else -x

        with pytest.raises(CaptureError, match=r"(?s)at .*if x\.sum\(\) > 0.*torch.export also failed"):
            transform(Branching(), torch.randn(3), patterns=PATTERNS)
        assert capfd.readouterr() == ("", "")

    def test_trace_is_also_taken_by_its_value(self):
        assert transform(nn.ReLU(), torch.randn(2), patterns=PATTERNS, trace="export").report["capture"] == "export"

    def test_trace_export_needs_inputs(self, net):
        with pytest.raises(InputError, match="needs example inputs"):
            transform(net, patterns=PATTERNS, trace=Trace.EXPORT)

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch.compile's own import
    def test_compiled_module_is_unwrapped(self, net):
        result = transform(torch.compile(net), patterns=PATTERNS)
        assert result.report["applied_count"] == 4

    def test_data_parallel_is_refused(self, net):
        with pytest.raises(CaptureError, match=r"model\.module"):
            transform(nn.DataParallel(net), patterns=PATTERNS)

    def test_scripted_module_is_refused(self):
        class Scripted(torch.jit.ScriptModule):
            pass

        with pytest.raises(CaptureError, match="TorchScript"):
            transform(Scripted(), patterns=PATTERNS)
        with pytest.raises(CaptureError, match=r"'1\.0' is a TorchScript module, which cannot be captured"):
            transform(nn.Sequential(nn.ReLU(), nn.Sequential(Scripted())), torch.ones(1), patterns=PATTERNS)

    def test_model_that_cannot_be_copied(self):
        class Locked(nn.Module):
            def __deepcopy__(self, memo):
                raise TypeError("cannot pickle '_thread.lock' object")

        with pytest.raises(CaptureError, match="cannot be deep-copied"):
            transform(Locked(), patterns=PATTERNS)

    def test_buffer_written_while_tracing_is_noted_and_put_back(self):
        class Counting(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("count", torch.zeros(2))

            def forward(self, x):
                self.count.add_(1)
                return x + 1

        model = Counting()
        result = transform(model, patterns=PATTERNS)
        assert result.report["notes"] == ["the model's forward writes into 'count'; that is not part of the graph"]
        assert torch.equal(model.count, torch.zeros(2))

    @pytest.mark.parametrize(
        ("model", "message"),
        [(ResidualNet, "pass an instance"), ("net", "expected an nn.Module"), (None, "expected an nn.Module")],
    )
    def test_not_a_model(self, model, message):
        with pytest.raises(InputError, match=message):
            transform(model, patterns=PATTERNS)
