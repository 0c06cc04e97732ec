"""Which values of a file are the same in every run."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

#: Operators that give another number each time, so that their result is not a constant although they read none.
_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"})


class Constants:
    """Which values are the same in every run: stored in the file, or computed from such values only.

    ``value in constants`` asks; an input that is left out is one too. A graph is walked once, however many values are
    asked about, so a rule makes one of these for a model: not kept for another, because answers are those of the graph
    as it was.
    """

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def __contains__(self, value: "ir.Value | None") -> bool:
        waiting = [value]
        while waiting:
            asked = waiting[-1]
            unknown = [] if asked is None or id(asked) in self._known else self._looked_at(asked)
            waiting.extend(unknown)
            if not unknown:
                waiting.pop()
        return value is None or self._known[id(value)]

    def _looked_at(self, value: "ir.Value") -> "list[ir.Value]":
        """Decide about a value, or name those that are to be decided before it."""
        node = value.producer()
        if value.const_value is not None or node is None or node.op_type in _RANDOM:
            self._known[id(value)] = value.const_value is not None
            return []
        inputs = [each for each in node.inputs if each is not None]
        found = [self._known.get(id(each)) for each in inputs]
        unknown = [each for each, answer in zip(inputs, found, strict=True) if answer is None]
        if unknown and False not in found:
            return unknown
        self._known[id(value)] = all(found) if node.inputs else node.op_type == "Constant"
        return []
