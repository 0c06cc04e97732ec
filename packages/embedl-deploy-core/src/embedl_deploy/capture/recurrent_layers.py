"""Lets ``torch.export`` capture recurrent layers with an open number of steps.

To find the shapes of what a recurrent layer gives, torch runs it on fake tensors, by one of several ways that it has.
Some take the sequence apart step by step, and so fix the number of steps; which one is taken depends on the type, the
device, and what the process has exported before. The shapes follow from those of the inputs alone.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

aten: Any = torch.ops.aten

#: Those that ONNX has. The exporter writes others out step by step, for one number of steps.
_OPERATORS = (aten.lstm.input, aten.gru.input)
_here = threading.local()


@contextmanager
def steps_left_open() -> Iterator[None]:
    """Within the block, in this thread, what a recurrent layer gives on fake tensors is told by its shape."""
    for operator in _OPERATORS:
        _add_rule(operator)
    before = getattr(_here, "is_on", False)
    _here.is_on = True
    try:
        yield
    finally:
        _here.is_on = before


def _add_rule(operator: Any) -> None:
    """Put the rule before each of the ways that torch has, where it is not yet."""
    for key, kernel in list(operator.py_kernels.items()):
        if not isinstance(kernel, _ByShape):
            operator.py_kernels[key] = _ByShape(kernel)
            operator._dispatch_cache.clear()
    if operator not in fake_impls.FAST_OP_IMPLEMENTATIONS:
        by_shape = _ByShape(decomposition_table[operator])

        def in_mode(mode: Any, *args: Any, **kwargs: Any) -> Any:
            with mode:
                return by_shape(*args, **kwargs)

        fake_impls.FAST_OP_IMPLEMENTATIONS[operator] = in_mode


class _ByShape:
    """A kernel of torch's, and in its place the shapes alone, where nothing notes what it would compute by."""

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self.kernel = kernel

    def __call__(self, steps: torch.Tensor, states: Any, *settings: Any) -> Any:
        is_fake = isinstance(steps, FakeTensor) and getattr(_here, "is_on", False)
        if not is_fake or get_proxy_mode() is not None:
            return self.kernel(steps, states, *settings)
        all_states: Sequence[torch.Tensor] = [states] if isinstance(states, torch.Tensor) else states
        return _output(steps, all_states[0], *settings), *(state.new_empty(state.shape) for state in all_states)


def _output(steps: torch.Tensor, state: torch.Tensor, *settings: Any) -> torch.Tensor:
    """What is given at each step: (steps, batch, directions x hidden), or batch first, with the strides that it has."""
    *_, is_bidirectional, is_batch_first = settings
    width = state.shape[-1] * (2 if is_bidirectional else 1)
    if not is_batch_first:
        return steps.new_empty((*steps.shape[:2], width))
    return steps.new_empty((steps.shape[1], steps.shape[0], width)).transpose(0, 1)
