"""Faults that are planted are found, told apart, made small, and written as files that fail by themselves."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import embedl_deploy
from embedl_deploy import EmbedlDeployError
from embedl_deploy.modules import FusedModule
from embedl_deploy.patterns import Pattern
from fuzz.__main__ import main
from fuzz.failure_files import minimised, write_failure
from fuzz.laws import LAWS, Law, quantizing, subject
from fuzz.laws.law import LeftOut
from fuzz.laws.subject import Subject
from fuzz.network import write_network
from fuzz.outcome import BROKEN, HELD, LEFT_OUT, REFUSED
from fuzz.reporting import Tally
from fuzz.running import run_networks
from fuzz.trying import hold, try_network
from support.fuzz_workers import crash_or_hang


def broken(law, seeds=range(40)):
    """The first network that breaks a law, and how."""
    for seed in seeds:
        for outcome in try_network(seed, [law]):
            if outcome.status == BROKEN:
                return seed, outcome
    raise AssertionError("nothing was found")


def small(model):
    """A subject that is not generated."""
    return Subject(0, lambda: model, lambda seed: ((torch.arange(8.0).view(2, 4) - seed,), {}))


class WithoutBias(FusedModule):
    inputs_to_quantize = frozenset()

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return F.linear(x, self.linear.weight)


class WithoutBiasPattern(Pattern):
    tree = (nn.Linear,)
    graft = WithoutBias


@pytest.fixture
def dropped_bias(monkeypatch):
    """Every transformation uses a pattern that drops biases."""

    def transform(model, args=None, **options):
        options.pop("backend")
        return embedl_deploy.transform(model, args, **options, patterns=[WithoutBiasPattern()])

    monkeypatch.setattr(subject, "transform", transform)


@pytest.mark.parametrize("law", ["eval_symbolic", "train_mode", "gradients"])
def test_a_pattern_that_drops_a_bias(dropped_bias, law):
    _, outcome = broken(law)
    assert "off" in outcome.text if law == "gradients" else "of the largest value apart" in outcome.text


def test_a_failure_is_made_small(dropped_bias):
    seed, outcome = broken("eval_symbolic")
    dropped = minimised(seed, outcome)
    network = write_network(seed, dropped)
    assert "linear" in network.source.lower()
    assert len(network.blocks) < len(write_network(seed).blocks)
    assert broken("eval_symbolic", [seed])[1].kind == outcome.kind


def test_a_model_that_is_changed(monkeypatch):
    one = small(nn.Sequential(nn.Linear(4, 4)).eval())
    assert hold(LAWS["untouched"], one).status == HELD

    def heavy_handed(model, *args, **options):
        result = embedl_deploy.transform(model, *args, **options)
        model[0].weight.data[0, 0] += 1
        torch.rand(1)
        return result

    monkeypatch.setattr(subject, "transform", heavy_handed)
    outcome = hold(LAWS["untouched"], one)
    assert outcome.text == "transform changed the user's model: random numbers, tensor 0.weight"


def test_a_quantized_model_that_is_wrong(monkeypatch):
    one = small(nn.Sequential(nn.Linear(4, 4)).eval())
    assert hold(LAWS["quantize_sane"], one).status == HELD

    def wrong(*args, **options):
        model = embedl_deploy.quantize.quantize(*args, **options)
        for parameter in model.parameters():
            parameter.data.neg_()
        return model

    monkeypatch.setattr(quantizing, "quantize", wrong)
    outcome = hold(LAWS["quantize_sane"], one)
    assert outcome.status == BROKEN
    assert outcome.kind == "Broken: quantized: … dB, where … are expected"


def _raising(error):
    def function(_):
        raise error

    return function


def _warning(_):
    warnings.warn("odd", stacklevel=1)


@pytest.mark.parametrize(
    ("function", "status", "kind"),
    [
        (lambda _: None, HELD, ""),
        (_raising(EmbedlDeployError("no 3 'x'")), REFUSED, "EmbedlDeployError: no … …"),
        (_raising(KeyError("x")), BROKEN, "KeyError: …"),
        (_warning, BROKEN, "warning: odd"),
        (_raising(LeftOut()), LEFT_OUT, ""),
    ],
)
def test_what_becomes_of_a_law(function, status, kind):
    outcome = hold(Law("law", function, 1.0), small(nn.Identity()))
    assert (outcome.status, outcome.kind) == (status, kind)


def test_files_of_failures_run_by_themselves(tmp_path):
    (outcome,) = try_network(5001, ["eval_symbolic"])
    path = write_failure(tmp_path, 5001, outcome, frozenset())
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "held\n", done.stderr
    wrong = path.read_text().replace("    return args, kwargs\n", "    return (*args, 0), kwargs\n", 1)
    path.write_text(wrong)
    with pytest.raises(Exception, match="The model takes the inputs"):
        main(["--replay", str(path)])


def test_a_crash_and_a_hang_cost_one_network_each():
    found = dict(run_networks(range(4), jobs=2, timeout=5, work=crash_or_hang))
    tally = Tally()
    for seed, outcomes in found.items():
        tally.add(seed, outcomes)
    assert sorted(found) == [0, 1, 2, 3]
    assert found[1][0].text == "the process ended with 3"
    assert found[2][0].text == "not done after 5 seconds"
    assert (tally.networks, tally.broken, tally.counts["law", HELD]) == (4, 2, 2)
