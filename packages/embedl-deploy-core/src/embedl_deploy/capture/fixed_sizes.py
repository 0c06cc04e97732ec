"""Error messages about sizes that the model's code fixes, such as the length of a loop.

A Python loop runs while the model is captured. The graph contains its steps one after another, as many as the example
inputs need, so a dimension that the code loops over cannot be open.
"""

import re
from collections.abc import Iterable

from torch.fx.proxy import TraceError

from embedl_deploy.errors import CaptureError

#: Of torch.export, for a dimension that was to be open.
_SPECIALIZED = re.compile(r"marked (\S+) as dynamic but your code specialized it to be a constant \((\d+)\)")
_LOOP = re.compile(r"(^|[\[({\s])for\s.+\sin\s")
#: What Python says of a proxy that stands for a value.
_PROXY = re.compile(r"'?TruthfulProxy'?( object)?")
_UNROLLED = (
    "a Python loop over a size is unrolled: the graph contains the steps for the size of the example inputs. Use a "
    "layer that loops internally (nn.RNN, nn.LSTM, nn.GRU) or an operation on the whole tensor (cumsum, a "
    "convolution), which keep the size open; or remove the dimension from dynamic_shapes and give example inputs of "
    "the length that you need"
)


class FixedSizeError(CaptureError):
    """A dimension that was to be open is fixed by the model's code."""


def is_loop(code: str) -> bool:
    """Whether a line of code begins a loop, or holds a comprehension."""
    return _LOOP.search(code) is not None


class UnknownLengthError(TraceError):
    """Symbolic tracing ended because a loop iterates over what has no known length."""


def stops_at_loop(error: BaseException | None, code: str) -> bool:
    """Whether symbolic tracing ended because a loop has no known number of steps.

    Args:
        error: What ended it.
        code: The line at which it ended.
    """
    by_number = isinstance(error, TypeError) and "interpreted as an integer" in str(error)  # what range() says
    return is_loop(code) and (by_number or isinstance(error, UnknownLengthError))


def about_loops(codes: Iterable[str]) -> list[str]:
    """What to do about the loops among lines of code, as items of a list."""
    return [f"  - {_UNROLLED}."] if any(map(is_loop, codes)) else []


def fixed_by_code(said: str) -> str:
    """Which dimensions torch.export found to be fixed, in words; empty if its error is about something else."""
    fixed = dict(_SPECIALIZED.findall(said))
    if not fixed:
        return ""
    sizes = " and ".join(f"{name!r} to {size}" for name, size in fixed.items())
    return f"dynamic_shapes opens dimensions, but the model's code fixes {sizes}"


def without_proxies(said: str) -> str:
    """An error's text with words for what stands for a value while symbolic tracing runs the model's code."""
    return _PROXY.sub("a value that is not known in symbolic tracing", said)
