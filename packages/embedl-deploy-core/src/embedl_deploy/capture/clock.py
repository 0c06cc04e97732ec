"""Detects models that compute with the time, because a graph would always use the time of its capture.

Which functions of ``time`` the code calls is noted while it runs. Whether anything depends on them is found out by
running it again at another time: seconds that have passed since 1970 hardly differ between two calls, as a part of
themselves. A function that the code has imported by name, or ``datetime``, is not seen.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from embedl_deploy.capture.next_call import OtherCallsDifferError
from embedl_deploy.capture.user_code import is_user_code
from embedl_deploy.exclusive import global_state

#: By name: how many of a function's units a second has.
_FUNCTIONS = {
    **dict.fromkeys(("time", "perf_counter", "monotonic"), 1),
    **dict.fromkeys(("time_ns", "perf_counter_ns", "monotonic_ns"), 10**9),
}
_A_CENTURY = 100 * 365 * 86400


class Clock:
    """What a model's code asks of the clock.

    Attributes:
        asked: The functions of ``time`` that it has called.
    """

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def watched(self) -> Any:
        """A context in which the model's code runs."""
        return self._replaced(0)

    def later(self) -> Any:
        """A context in which it is a century later for the code that asks."""
        return self._replaced(_A_CENTURY)

    @contextmanager
    def _replaced(self, seconds: int) -> Iterator[None]:
        here = threading.get_ident()
        real = {name: getattr(time, name) for name in _FUNCTIONS}

        def asking(name: str, function: Callable[[], Any]) -> Callable[[], Any]:
            def ask() -> Any:
                if threading.get_ident() != here or not is_user_code(sys._getframe(1).f_code.co_filename):
                    return function()
                self.asked.add(name)
                return function() + seconds * _FUNCTIONS[name]

            return ask

        with global_state:
            try:
                for name, function in real.items():
                    setattr(time, name, asking(name, function))
                yield
            finally:
                for name, function in real.items():
                    setattr(time, name, function)

    def notes(self) -> tuple[str, ...]:
        """What the user should know where nothing is known to depend on the time."""
        if not self.asked:
            return ()
        return (f"the model's forward calls {self._names()}; if the graph uses the time, it is that of the capture",)

    def refuse(self, model: nn.Module) -> OtherCallsDifferError:
        """The error for a model that computes with the time."""
        return OtherCallsDifferError(
            f"{type(model).__name__} cannot be captured: its forward calls {self._names()}, and its outputs depend on "
            "the result. The graph would always use the time of the capture. Make the time an input of forward."
        )

    def _names(self) -> str:
        return " and ".join(f"time.{name}()" for name in sorted(self.asked))
