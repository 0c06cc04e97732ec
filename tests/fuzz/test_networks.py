"""Laws on a few generated networks; ``./dev fuzz`` tries any number."""

from functools import cache

import pytest

from fuzz.outcome import BROKEN, HELD
from fuzz.trying import try_network

#: Cheap laws, one for each kind of fault.
LAWS = ("eval_symbolic", "second_transform", "train_mode", "gradients", "untouched")
SEEDS = range(5000, 5020)


@cache
def tried(seed):
    return try_network(seed, LAWS)


@pytest.mark.parametrize("seed", SEEDS)
def test_laws_hold(seed):
    outcomes = tried(seed)
    assert [outcome.law for outcome in outcomes] == list(LAWS)
    assert all(outcome.status != BROKEN for outcome in outcomes), outcomes


def test_most_networks_are_taken():
    assert sum(tried(seed)[0].status == HELD for seed in SEEDS) >= 0.6 * len(SEEDS)


@pytest.mark.parametrize("seed", range(5100, 5103))
def test_quantized_networks(seed):
    outcomes = try_network(seed, ("plan_as_json", "quantize_sane", "recipe", "frozen", "pickled"))
    assert all(outcome.status != BROKEN for outcome in outcomes), outcomes
