"""Hooks that a process has for all modules: those that look do no harm, those that change values are refused."""

import threading
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module

from embedl_deploy import transform
from embedl_deploy.errors import CaptureError
from embedl_deploy.graph.process_hooks import call_hooks_set_aside
from embedl_deploy.modules import symbolic_trace
from support.nets import net, random_input
from support.small_patterns import PATTERNS

X = random_input(2, 8)
FORWARD = torch_module.register_module_forward_hook
FORWARD_PRE = torch_module.register_module_forward_pre_hook


def model():
    """Calls of every kind: of a leaf, of a module that is traced through, of the model itself."""
    inner = net(lambda m, x: torch.relu(m.fc(x)), fc=nn.Linear(8, 8))
    return nn.Sequential(inner, nn.Linear(8, 8)).eval()


@contextmanager
def registered(register, hook):
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


def doubling(module, args, output):
    return output * 2 if isinstance(module, nn.Linear) else None


def doubling_in_place(module, args, output):
    with torch.no_grad():
        output.mul_(2)


def doubling_what_is_given(module, args):
    return args[0] * 2


def looking(module, args, output):
    output.abs().max().item()
    return output


def looking_at_what_is_given(module, args):
    args[0].abs().max().item()
    return args[0]


def given():
    return symbolic_trace(model())


@pytest.mark.parametrize(
    ("subject", "options"),
    [(model, {}), (model, {"trace": "export"}), (given, {})],
    ids=["symbolic", "export", "given"],
)
class TestForwardHooks:
    @pytest.mark.parametrize(
        ("register", "hook"),
        [(FORWARD, doubling), (FORWARD, doubling_in_place), (FORWARD_PRE, doubling_what_is_given)],
    )
    def test_that_change_values_are_refused(self, register, hook, subject, options):
        made = subject()
        expected = rf"the global module hook '{hook.__name__}' \({register.__name__}\).* changes .*handle.remove\(\)"
        with registered(register, hook), pytest.raises(CaptureError, match=expected):
            transform(made, X, patterns=PATTERNS, **options)

    @pytest.mark.parametrize(("register", "hook"), [(FORWARD, looking), (FORWARD_PRE, looking_at_what_is_given)])
    def test_that_look_change_nothing(self, register, hook, subject, options):
        made = subject()
        wanted = made(X)
        with registered(register, hook):
            result = transform(made, X, patterns=PATTERNS, **options)
            torch.testing.assert_close(result.model(X), wanted)
        assert result.report["notes"] == []


class TestHooks:
    @pytest.mark.parametrize("inputs", [{}, {"args": X, "verify_capture": False}])
    def test_that_cannot_be_tried_are_refused(self, inputs):
        expected = r"'looking' \(register_module_forward_hook\).* handle.remove\(\), or give example inputs"
        with registered(FORWARD, looking), pytest.raises(CaptureError, match=expected):
            transform(model(), patterns=PATTERNS, **inputs)

    @pytest.mark.parametrize("inputs", [{}, {"args": X, "trace": "export"}])
    def test_for_gradients_run_on_the_result(self, inputs):
        seen = []
        subject = model()
        with registered(torch_module.register_module_full_backward_hook, lambda module, *_: seen.append(type(module))):
            result = transform(subject, patterns=[], **inputs).model
            assert seen == []
            result(X.clone().requires_grad_()).sum().backward()
        assert len(seen) == 3  # two layers and the graph

    def test_for_parameters_are_for_those_of_the_user(self):
        # Capture by torch.export, and the modules that calls of functions are read as, hold the user's own.
        subject = model()
        wanted = subject(X)
        doubled = torch_module.register_module_parameter_registration_hook
        with registered(doubled, lambda module, name, parameter: nn.Parameter(parameter.detach() * 2)):
            result = transform(subject, X, patterns=PATTERNS, trace="export")
        torch.testing.assert_close(result.model(X), wanted)


def test_other_threads_go_on_with_their_hooks():
    seen = []
    with registered(FORWARD, lambda module, args, output: seen.append(threading.current_thread().name)):
        with call_hooks_set_aside():
            nn.Identity()(X)
            other = threading.Thread(target=nn.Identity(), args=(X,), name="other")
            other.start()
            other.join()
        assert seen == ["other"]
        nn.Identity()(X)
    assert seen == ["other", threading.current_thread().name]
