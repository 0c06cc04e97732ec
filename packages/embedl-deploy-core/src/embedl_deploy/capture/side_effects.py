"""Records what ``forward`` changes in the model during tracing, and undoes it.

Tracing runs the model's Python code once, on a copy. What the code assigns to attributes happens there and then, with
proxies for values; what it writes to tensors, without a traced value involved, likewise.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import CaptureError
from embedl_deploy.verify.kept import NOTHING, Change
from embedl_deploy.verify.state import State

_NUMBERS = (int, float)
#: How far a number is moved to see what a call would do with it after many others.
_FAR = 10007


class SideEffects:
    """What a trace has changed of a model.

    Args:
        original: The model.
        model: The copy that was traced.
        before: The state of the copy before.
        graph: What was traced.

    Attributes:
        kept: Paths of the attributes and buffers that hold traced values.
        written: Paths of the other buffers that were replaced or written to.
        others: Paths of the other attributes that hold something else.
    """

    def __init__(self, original: nn.Module, model: nn.Module, before: State, graph: fx.Graph) -> None:
        self._original, self._model, self._before = original, model, before
        self._targets = {str(node.target) for node in graph.find_nodes(op="get_attr")}
        changes = list(before.changes())
        self._made = {c.name for c in changes if c.before is NOTHING and c.name in self._targets}
        self._changes = self._not_of_the_graph(changes)
        self._buffers = {name for name, _ in original.named_buffers()} if self._changes else set()
        changed = before.in_order({change.name for change in self._changes})
        holding = {change.name for change in self._changes if _holds_proxy(change.now)}
        self.kept = [name for name in changed if name in holding]
        self.written = [name for name in changed if name in self._buffers - holding]
        self.others = [name for name in changed if name not in self._buffers | holding]

    def __bool__(self) -> bool:
        return bool(self._changes)

    def _not_of_the_graph(self, changes: Iterable[Change]) -> list[Change]:
        """Changes but those that the graph was made with, and of parameters: what forward does to them stays."""
        return [c for c in changes if c.name not in self._made and not isinstance(c.before, nn.Parameter)]

    def move_numbers_on(self) -> bool:
        """Move numbers that have changed as far as many calls would; whether there are any."""
        numbers = [c for c in self._changes if type(c.before) in _NUMBERS and type(c.now) is type(c.before)]
        for change in numbers:
            change.write(change.now + (change.now - change.before) * _FAR)
        return bool(numbers)

    def put_back_tensors(self) -> None:
        """Put back traced values and buffers, for another trace that differs by other values alone."""
        for change in self._not_of_the_graph(self._before.changes()):
            if change.name not in self.others:
                change.write(change.before)

    def put_back(self) -> None:
        """Put back all that has changed, by further traces as well."""
        for change in self._not_of_the_graph(self._before.changes()):
            change.write(change.before)

    def take_back(self, *, next_call_differs: bool) -> tuple[str, ...]:
        """Undo what would be wrong or in the way later.

        Args:
            next_call_differs: Whether another trace gave another graph.

        Returns:
            What the user should know.

        Raises:
            CaptureError: The graph depends on a tensor that forward sets: its next call would start from the new value.
        """
        if not self._changes:
            return ()
        self.put_back()
        self._refuse_tensors_that_are_read(next_call_differs=next_call_differs)
        notes = []
        if self.written:
            notes.append(f"the model's forward writes into {_quoted(self.written)}; that is not part of the graph")
        if self.kept:
            notes.append(f"the model's forward keeps values in {_quoted(self.kept)}; the graph does not")
        if self.others:
            notes.append(f"the model's forward changes {_quoted(self.others)}; that is not part of the graph")
        return tuple(notes)

    def _refuse_tensors_that_are_read(self, *, next_call_differs: bool) -> None:
        tensors = {change.name for change in self._changes if isinstance(change.before, torch.Tensor)}
        read = {*self._targets, *map(self._owner, self._targets)}
        if next_call_differs and self._made:
            read.update(self.written)  # a tensor that was computed during tracing may have been computed from any
        for name in (*self.kept, *self.written, *self.others):
            if name in self._buffers and (name in self.kept or name in read):
                raise depends_on_state(self._original, f"sets the buffer {name!r} and computes with it", name)
            if name in self.others and name in tensors & read:
                raise depends_on_state(self._original, f"changes the tensor {name!r} and computes with it", name)

    def _owner(self, target: str) -> str | None:
        """The attribute that the model had, in whose memory a constant of the graph lies."""
        value: Any = self._model
        for name in target.split("."):
            value = getattr(value, name)
        return self._before.owner(value) if isinstance(value, torch.Tensor) else None


def depends_on_state(original: nn.Module, what: str, path: str) -> CaptureError:
    """The error for a graph that would be wrong from the second call on, where ``torch.export`` may do better.

    Args:
        original: The model.
        what: What forward does, as the rest of a sentence.
        path: What it does it to.
    """
    fault = (
        f"{type(original).__name__} cannot be traced symbolically: its forward {what}, which a symbolic graph cannot do"
    )
    return CaptureError(
        f"{fault}. Give example inputs, transform(model, args=(...)), so that torch.export can capture the model "
        "instead.",
        module_path=path.rpartition(".")[0],
        fault=fault,
    )


def _quoted(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def _holds_proxy(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_proxy, value))
    if isinstance(value, dict):
        return any(map(_holds_proxy, value.values()))
    return isinstance(value, fx.Proxy)
