"""Observers merge exactly: what two have seen apart is, bit for bit, what one has seen of both."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedl_deploy.numerics.tensor_config import CalibrationMethod, TensorQuantConfig
from embedl_deploy.quantize.grid.factory import make_observer
from embedl_deploy.quantize.grid.histogram import Histogram

KINDS = {
    "minmax": (CalibrationMethod.MINMAX, None),
    "histogram": (CalibrationMethod.ENTROPY, None),
    "known range": (CalibrationMethod.MINMAX, 1.0),
}
SEEDS = st.integers(0, 2**16)


def observer(kind, batches=()):
    method, amax = KINDS[kind]
    made = make_observer(TensorQuantConfig(calibration_method=method), "x", is_weight=False, amax=amax)
    for batch in batches:
        made.observe(batch)
    return made


def batches_of(kind, seed):
    """Some batches of very different ranges; one of zeros."""
    generator = torch.Generator().manual_seed(seed)
    batches = [10.0 ** (i % 7 - 3) * torch.randn(3, 50, generator=generator) for i in range(seed % 6 + 1)]
    if kind == "known range":
        batches = [(batch * 3).softmax(-1) for batch in batches]
    return [*batches, torch.zeros(2, 50)]


def state(value):
    """Everything that an observer knows, to compare; which of two batches that reach as far it names is chance."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, (list, tuple)):
        return [state(each) for each in value]
    if hasattr(value, "__dict__") and not isinstance(value, type):
        return {name: state(each) for name, each in vars(value).items() if name not in ("batch", "rank", "config")}
    return value


@pytest.mark.parametrize("kind", KINDS)
@given(seed=SEEDS, data=st.data())
def test_merged_observers_are_one_of_all_batches(kind, seed, data):
    batches = batches_of(kind, seed)
    whole = observer(kind, batches)
    order = data.draw(st.permutations(range(len(batches))))
    where = [data.draw(st.integers(0, 2)) for _ in order]
    parts = [observer(kind, [batches[i] for i, part in zip(order, where, strict=True) if part == n]) for n in range(3)]
    merged = pickle.loads(pickle.dumps(parts[0]))
    for part in parts[1:]:
        merged.merge(pickle.loads(pickle.dumps(part)))
    assert state(merged) == state(whole)
    assert torch.equal(merged.grid().scale, whole.grid().scale)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=SEEDS)
def test_what_is_seen_does_not_depend_on_the_size_of_batches(kind, seed):
    rows = torch.cat(batches_of(kind, seed))
    one, by_row = observer(kind, [rows]), observer(kind, rows.split(1))
    ignored = ("batches", "seen")
    assert {n: v for n, v in state(one).items() if n not in ignored} == {
        n: v for n, v in state(by_row).items() if n not in ignored
    }


def test_a_known_range_has_exact_sums():
    made = observer("known range", [torch.tensor([[0.5, 0.25, 0.001, 0.001, 0.0005]])])
    assert made._total == sum(int(torch.tensor(x).double() * 2**36) for x in (0.5, 0.25, 0.001, 0.001, 0.0005))
    # Half a step is 1/254: below it 0.001 twice and 0.0005; below a quarter, an eighth of it 0.0005 alone.
    small, smaller = (int(torch.tensor(x).double() * 2**36) for x in (0.001, 0.0005))
    assert made._below[:4] == [2 * small + smaller, 2 * small + smaller, smaller, 0]


def test_a_histogram_of_zeros_merges_with_any():
    zeros, ones = Histogram(), Histogram()
    zeros.add(torch.zeros(5), 0.0, 0.0)
    ones.add(torch.ones(3), 1.0, 1.0)
    for first, second in ((zeros, ones), (ones, zeros)):
        merged = pickle.loads(pickle.dumps(first))
        merged.merge(second)
        assert merged.counts[0, 0] == 5 and merged.counts.sum() == 8 and merged.exponent == ones.exponent
    merged = pickle.loads(pickle.dumps(zeros))
    merged.merge(zeros)
    assert merged.exponent is None and merged.zeros == 10
