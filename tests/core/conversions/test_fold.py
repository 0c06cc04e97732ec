"""Fold as sums of blocks, and Unfold of a grid as a permutation."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.conversions import DecomposeFoldPattern, PermuteUnfoldPattern
from embedl_deploy.modules.fold import PermutedUnfold, SummedFold
from support.agreement import applied, assert_close, check_rewrite, reasons
from support.nets import net, random_input

PATTERNS = [DecomposeFoldPattern()]
OVERLAPPING = {"kernel_size": 3, "stride": 2, "padding": 1}
SPELLINGS = {
    "module": lambda m, x: m.fold(F.unfold(x, **OVERLAPPING) * 2),
    "function": lambda m, x: F.fold(F.unfold(x, **OVERLAPPING) * 2, (7, 8), **OVERLAPPING),
    "the size of its input": lambda m, x: F.fold(F.unfold(x, **OVERLAPPING) * 2, x.shape[-2:], **OVERLAPPING),
    "sizes of its input": lambda m, x: F.fold(F.unfold(x, **OVERLAPPING) * 2, (x.size(2), x.shape[3]), **OVERLAPPING),
}


@pytest.mark.parametrize(
    ("spelling", "trace"), [*((name, "symbolic") for name in SPELLINGS), ("module", "export"), ("function", "export")]
)
def test_every_spelling(spelling, trace):
    model = net(SPELLINGS[spelling], fold=nn.Fold((7, 8), **OVERLAPPING)).double()
    x = random_input(2, 4, 7, 8).double()
    result = transform(model, x, patterns=PATTERNS, trace=trace, strict=True)
    assert sum(isinstance(module, SummedFold) for module in result.model.modules()) == 1
    torch.testing.assert_close(result.model(x), model(x), rtol=1e-12, atol=1e-12)
    more = random_input(5, 4, 7, 8).double()
    torch.testing.assert_close(result.model(more), model(more), rtol=1e-12, atol=1e-12)


def test_a_map_of_another_size():
    model = net(SPELLINGS["the size of its input"])
    result = check_rewrite(model, (random_input(2, 4, 7, 8),), PATTERNS)
    x = random_input(1, 4, 10, 5)
    assert_close(result.model(x), model(x))


@pytest.mark.parametrize(
    "fold",
    [
        nn.Fold(8, 2, stride=2),
        nn.Fold((9, 7), 2, stride=2),  # a row and a column that no window reaches
        nn.Fold((9, 10), 3, padding=1),
        nn.Fold((9, 10), (2, 3), dilation=(3, 2), padding=(1, 0), stride=(2, 3)),
        nn.Fold(9, 2, stride=4),  # rows between the windows
        nn.Fold((4, 5), 1),
    ],
    ids=str,
)
def test_windows(fold):
    count = F.unfold(torch.zeros(1, 1, *_pair(fold.output_size)), **_window(fold)).shape
    windows = random_input(2, 3 * count[1], count[2])
    for x in (windows, windows[0]):  # a batch, and one
        result = check_rewrite(net(lambda m, x: m.fold(x), fold=fold), (x,), PATTERNS)
        assert applied(result) == [("DecomposeFoldPattern", "fold")]


def _pair(size):
    return (size, size) if isinstance(size, int) else size


def _window(fold):
    return {name: getattr(fold, name) for name in ("kernel_size", "dilation", "padding", "stride")}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_computed_in_the_type_of_its_input(dtype):
    model = net(SPELLINGS["function"])
    result = transform(model, random_input(2, 4, 7, 8), patterns=PATTERNS)
    x = random_input(2, 4, 7, 8).to(dtype)
    assert_close(result.model(x), model(x), 2e-2)


def test_an_infinite_value_stays_where_it_is():
    x = torch.zeros(1, 9, 16)
    x[0, 4, 5] = float("inf")
    fold = nn.Fold(4, 3, padding=1)
    assert_close(SummedFold((3, 3), (1, 1), (1, 1), (1, 1))(x, 4), fold(x))


def test_what_overwrites_the_map_does_not_reach_the_windows():
    model = net(lambda m, x: (y := x * 2, F.fold(y, (4, 5), 1).add_(1), y))
    assert len(applied(check_rewrite(model, (random_input(2, 3, 20),), PATTERNS))) == 1


def test_it_says_why_not():
    hooked = net(lambda m, x: m.fold(x), fold=nn.Fold(4, 2, stride=2))
    hooked.fold.register_forward_hook(lambda *_: None)
    (reason,) = reasons(transform(hooked, random_input(2, 12, 4), patterns=PATTERNS))
    assert reason.endswith("hooks on the module would be lost")
    computed = net(lambda m, x: F.fold(x, (4, 4), (x.shape[1] // 6, 2), stride=2))
    (reason,) = reasons(transform(computed, random_input(2, 12, 4), patterns=PATTERNS))
    assert reason.endswith("its kernel_size is computed on the way: expected numbers")


@pytest.mark.parametrize(
    ("unfold", "x"),
    [
        (nn.Unfold(2, stride=2), random_input(2, 3, 6, 8)),
        (nn.Unfold((2, 3), padding=(1, 0), stride=(2, 3)), random_input(2, 3, 5, 8)),  # a row and two columns are left
        (nn.Unfold(2, stride=2), random_input(3, 6, 8)),
        (nn.Unfold(1), random_input(2, 3, 4, 5)),
        (lambda x: F.unfold(x, 2, stride=2), random_input(2, 3, 6, 8)),
    ],
)
def test_a_grid_of_windows(unfold, x):
    model = net(lambda m, x: m.unfold(x), unfold=unfold)
    result = check_rewrite(model, (x,), [PermuteUnfoldPattern()])
    assert sum(isinstance(module, PermutedUnfold) for module in result.model.modules()) == 1
    assert torch.equal(result.model(x), model(x))
    larger = F.pad(x, (0, 3, 0, 5))
    assert torch.equal(result.model(larger), model(larger))


def test_what_overwrites_windows_does_not_reach_the_map():
    model = net(lambda m, x: (y := x * 2, F.unfold(y, 1).add_(1), y))
    assert len(applied(check_rewrite(model, (random_input(2, 3, 4, 5),), [PermuteUnfoldPattern()]))) == 1
