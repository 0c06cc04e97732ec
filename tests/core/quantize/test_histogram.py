"""The histogram over an unknown range."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedl_deploy.quantize.grid.histogram import BINS, Histogram
from support.nets import random_input


def histogram(*batches):
    found = Histogram()
    for batch in batches:
        found.add(batch, float(batch.min()), float(batch.max()))
    return found


def same(a, b):
    return a.exponent == b.exponent and torch.equal(a.counts, b.counts)


def test_counts_by_magnitude_and_sign():
    x = torch.tensor([-1.0, -0.5, 0.0, 0.0, 0.25, 1.0])
    found = histogram(x)
    assert found.counts.sum() == 6
    assert (found.counts[0].sum(), found.counts[1].sum()) == (4, 2)
    assert found.counts[0, 0] == 2
    for row, value in ((0, 1.0), (0, 0.25), (1, 0.5), (1, 1.0)):
        assert found.counts[row, int(value / found.width)] == 1


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=60),
    cuts=st.lists(st.integers(1, 59), max_size=4),
    seed=st.integers(0, 1000),
)
def test_neither_order_nor_splitting_matters(values, cuts, seed):
    x = torch.tensor(values)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    parts = [part for part in x[order].tensor_split(sorted(cuts)) if part.numel()]
    assert same(histogram(x), histogram(*parts))


@pytest.mark.parametrize("first", [1e-6, 1.0, 1e6])
def test_bins_are_a_power_of_two_wide_and_the_upper_half_is_used(first):
    for factor in (1, 3, 1000):
        found = histogram(torch.tensor([first]), torch.tensor([first * factor]))
        assert torch.frexp(torch.tensor(found.width)).mantissa == 0.5
        assert BINS // 2 <= int(first * factor / found.width) < BINS


def test_it_does_not_grow():
    found = Histogram()
    for seed in range(5):
        x = random_input(100, seed=seed) * 10**seed
        found.add(x, float(x.min()), float(x.max()))
        assert found.counts.shape == (2, BINS)
    assert found.counts.sum() == 500


def test_zeros_before_anything_else_are_counted():
    found = histogram(torch.zeros(7), torch.tensor([1.0]))
    assert found.counts[0, 0] == 7 and found.counts.sum() == 8
    assert histogram(torch.zeros(3)).exponent is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    x = random_input(50).to(dtype)
    assert same(histogram(x), histogram(x.float()))


def test_middles_of_bins_and_their_counts():
    values, counts = histogram(torch.tensor([-1.0, -1.0, 1.5])).centers()
    assert sorted(zip(values.tolist(), counts.tolist(), strict=True)) == [
        (pytest.approx(-1.0, rel=1e-3), 2),
        (pytest.approx(1.5, rel=1e-3), 1),
    ]


@pytest.mark.parametrize("value", [1e-44, 1e-40, 2**-126, 1e37, 3e38])
def test_the_ends_of_float32(value):
    found = histogram(torch.tensor([value, -value, 0.0]))
    assert found.counts.sum() == 3
