"""A graph draws the random numbers that the model draws, in every call from the same state, or there is none."""

import itertools
import random
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.capture.random_numbers import RandomNumbers
from embedl_deploy.errors import CaptureError
from support.nets import net, random_input
from support.small_patterns import PATTERNS

X = random_input(3, 8)


def _seeded(m, x):
    return m.a(x) + torch.rand(8, generator=torch.Generator().manual_seed(3))


def _seeded_in_place(m, x):
    return m.a(x) + torch.empty_like(x).normal_(generator=torch.Generator().manual_seed(3))


def _seeds_its_own(m, x):
    m.own.manual_seed(3)
    return m.a(x) * torch.bernoulli(x.sigmoid(), generator=m.own)


def _seeds_torch(m, x):
    torch.manual_seed(3)
    return F.dropout(m.a(x), training=True)


def _seeds_torch_for_a_while(m, x):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return m.a(x) + torch.rand_like(x)


def _branches(m, x):
    return m.a(x) if random.random() < 0.5 else x


def _rarely_skips(m, x):
    return m.a(x) if np.random.uniform() > 0.05 else x


def _chooses_a_layer(m, x):
    return random.choice([m.a, m.b, torch.relu])(x)


def _draws_for_training(m, x):
    """What layerdrop in older models of Hugging Face does."""
    skip = random.uniform(0, 1) < 0.1
    return x if m.training and skip else m.a(x)


def _seeds_python(m, x):
    random.seed(3)
    return m.a(x) * random.random()


def _model(forward):
    return net(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 8), own=torch.Generator().manual_seed(3))


#: How a model is captured: without inputs, with them, by torch.export.
WAYS = pytest.mark.parametrize("inputs", [{}, {"args": X}, {"args": X, "trace": "export"}], ids=["", "args", "export"])


@WAYS
class TestRefused:
    @pytest.mark.parametrize("forward", [_seeded_in_place, _seeds_its_own])
    def test_a_generator_that_forward_makes_or_seeds(self, forward, inputs):
        with pytest.raises(CaptureError, match=r"'(normal_|bernoulli)' draws from a torch.Generator that"):
            transform(_model(forward), patterns=PATTERNS, **inputs)

    @pytest.mark.parametrize("forward", [_seeds_torch, _seeds_torch_for_a_while])
    def test_a_seed_that_is_set(self, forward, inputs):
        torch.manual_seed(3)  # the same one, as it happens
        with pytest.raises(CaptureError, match="its forward seeds torch's random numbers"):
            transform(_model(forward), patterns=PATTERNS, **inputs)

    @pytest.mark.parametrize(
        "forward",
        [
            *(_branches, _rarely_skips, _chooses_a_layer),
            lambda m, x: m.a(x) * random.random(),
            lambda m, x: m.a(x) * float(np.random.rand()),
        ],
    )
    def test_numbers_from_elsewhere_than_torch(self, forward, inputs):
        random.seed(0)  # 0.84 and 0.76: both calls of a comparison take the same branch
        with pytest.raises(CaptureError, match=r"draws random numbers from '(numpy\.)?random', and its outputs"):
            transform(_model(forward), patterns=PATTERNS, **inputs)


class TestKept:
    @WAYS
    @pytest.mark.parametrize(
        "forward",
        [
            lambda m, x: m.a(x) + torch.randn_like(x),
            lambda m, x: F.dropout(m.a(x), training=True),
            lambda m, x: m.a(x) + torch.bernoulli(x.sigmoid()),
        ],
    )
    def test_the_same_numbers_are_drawn_from_the_same_state(self, forward, inputs):
        model = _model(forward)
        captured = transform(model, patterns=PATTERNS, **inputs).model
        torch.manual_seed(0)
        wanted = [model(X), model(X)]
        torch.manual_seed(0)
        assert [torch.equal(captured(X), output) for output in wanted] == [True, True]

    @WAYS
    def test_a_generator_of_the_model_goes_on_from_where_it_is(self, inputs):
        model = _model(lambda m, x: m.a(x) * torch.bernoulli(x.sigmoid(), generator=m.own))
        torch.rand(5, generator=model.own)
        captured = transform(model, patterns=PATTERNS, **inputs).model
        assert [torch.equal(captured(X), model(X)) for _ in range(3)] == [True] * 3

    @WAYS
    def test_numbers_that_nothing_depends_on(self, inputs):
        model = _model(_draws_for_training)
        result = transform(model, patterns=PATTERNS, **inputs)
        assert "draws random numbers from 'random'; that is not part of the graph" in result.report["notes"][-1]
        assert torch.allclose(result.model(X), model.a(X))

    def test_numbers_that_do_not_depend_on_the_call_are_constants(self):
        model = _model(_seeds_python)
        captured = transform(model, X, patterns=PATTERNS).model
        # random.Random(3).random() as Python's documentation of the Mersenne Twister promises it in every version.
        torch.testing.assert_close(captured(X), model.a(X) * 0.23796462709189137)

    def test_a_seed_before_numbers_that_are_not_drawn(self):
        def forward(m, x):
            torch.manual_seed(3)
            return F.dropout(m.a(x), training=m.training)

        model = _model(forward)
        *_, note = transform(model, X, patterns=PATTERNS).report["notes"]
        assert "seeds torch's random numbers; the graph does not" in note
        with pytest.raises(CaptureError, match="seeds torch's random numbers"):
            transform(model, X, patterns=PATTERNS, verify_capture=False)

    @WAYS
    def test_the_states_of_all_generators(self, inputs):
        def forward(m, x):
            return m.a(x) + torch.rand_like(x) * (random.random() < 2) * (np.random.rand() < 2)

        model = _model(forward)

        def states():
            return random.getstate(), repr(np.random.get_state()), torch.get_rng_state(), model.own.get_state()

        before = states()
        transform(model, patterns=PATTERNS, **inputs)
        assert all(torch.equal(a, b) if torch.is_tensor(a) else a == b for a, b in zip(before, states(), strict=True))


class TestSecondTrace:
    @pytest.mark.parametrize("changing", [time.perf_counter, itertools.count(1).__next__, random.Random(0).random])
    def test_what_changes_from_call_to_call_is_refused_without_example_inputs(self, changing):
        with pytest.raises(CaptureError, match="tracing its forward a second time gave a different graph"):
            transform(_model(lambda m, x: m.a(x) * changing()), patterns=PATTERNS)

    def test_constants_that_hold_nan_are_equal(self):
        model = _model(lambda m, x: torch.where(torch.tensor([1.0, float("nan")] * 4).isnan(), m.a(x), x) + torch.nan)
        assert transform(model, patterns=PATTERNS).model(X).isnan().all()


def test_chosen_numbers_are_near_the_ends_of_the_range():
    numbers = RandomNumbers(nn.Identity())
    with numbers.watched():
        random.random(), np.random.rand()
    found = []
    for chosen in numbers.extremes():
        with chosen:
            found.append(([random.random() for _ in range(200)], np.random.rand(200).tolist()))
    assert [len(set(ours)) == 1 for ours, _ in found] == [True, True, False, False]
    assert [round(ours[0], 3) for ours, _ in found[:2]] == [0.004, 0.996]
    assert [round(theirs[0], 3) for _, theirs in found[2:]] == [0.004, 0.996]
