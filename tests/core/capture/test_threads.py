"""Threads: torch.fx and torch.export replace functions of torch for the whole process while they trace."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from embedl_deploy import transform
from embedl_deploy.capture import Trace
from embedl_deploy.errors import QuantizationError
from embedl_deploy.exclusive import global_state
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.modules import FusedModule, symbolic_trace
from embedl_deploy.quantize import quantize
from support.nets import random_input, scrambled
from support.small_patterns import PATTERNS

X = random_input(2, 4, 8, 8)


def model() -> nn.Module:
    return scrambled(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))).eval()


def in_threads(*works: Callable[[], None]) -> list[Exception]:
    """Run all at once; what they raised."""
    raised: list[Exception] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        start.wait()
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told by the test
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize("trace", [Trace.SYMBOLIC, Trace.EXPORT])
def test_results_are_those_of_one_thread(trace: Trace) -> None:
    rounds = 5 if trace is Trace.SYMBOLIC else 1
    expected = transform(model(), X, patterns=PATTERNS, trace=trace)
    patched = nn.Module.__call__, nn.Module.__getattr__, torch.is_tensor, torch.autocast.__enter__
    found = []

    def work() -> None:
        for _ in range(rounds):
            found.append(transform(model(), X, patterns=PATTERNS, trace=trace))

    assert in_threads(*[work] * 4) == []
    assert {result.model.code for result in found} == {expected.model.code}
    assert all(torch.equal(result.model(X), expected.model(X)) for result in found)
    assert (nn.Module.__call__, nn.Module.__getattr__, torch.is_tensor, torch.autocast.__enter__) == patched


def test_other_threads_go_on_with_their_models() -> None:
    theirs, done = model(), threading.Event()
    expected = theirs(X)

    def infer() -> None:
        while not done.is_set():
            assert torch.equal(theirs(X), expected)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert theirs(X).dtype is torch.bfloat16
            torch.rand(1)

    def trace() -> None:
        try:
            for _ in range(5):
                assert transform(model(), X, patterns=PATTERNS).report["capture"] == "symbolic"
        finally:
            done.set()

    assert in_threads(infer, trace) == []


def test_one_model_for_all_threads() -> None:
    shared = model()
    result = transform(shared, X, patterns=PATTERNS)

    def work() -> None:
        for _ in range(3):
            assert transform(shared, X, patterns=PATTERNS).verify(X).max_abs == 0
            assert result.verify(X).max_abs == 0

    assert in_threads(*[work] * 4) == []


def _others_may() -> bool:
    """Whether another thread may replace global state now."""
    found: list[bool] = []

    def ask() -> None:
        found.append(global_state.acquire(blocking=False))
        if found[0]:
            global_state.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return found[0]


class _Copied:
    """Finds out, while it is copied, whether others may replace global state."""

    def __init__(self) -> None:
        self.others_may: list[bool] = []

    def __deepcopy__(self, memo: object) -> "_Copied":
        self.others_may.append(_others_may())
        return self


def test_warnings_are_ignored_by_one_thread_at_a_time() -> None:
    part = _Copied()
    network = model()
    network.part = part
    deep_copy(network)
    assert part.others_may == [False]


class _Fused(FusedModule):
    """Finds out, while it is traced, whether others may trace."""

    def __init__(self) -> None:
        super().__init__()
        self.others_may: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(x, fx.Proxy):
            self.others_may.append(_others_may())
        return x @ x.transpose(-1, -2)


def test_fused_modules_are_traced_by_one_thread_at_a_time() -> None:
    fused = _Fused()
    with pytest.raises(QuantizationError, match=r"_Fused.*it computes matmul"):  # which the trace finds
        quantize(symbolic_trace(nn.Sequential(fused)), [X], progress=False)
    assert fused.others_may
    assert not any(fused.others_may)
