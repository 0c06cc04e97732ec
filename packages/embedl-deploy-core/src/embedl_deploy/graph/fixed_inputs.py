"""Inputs that a graph is fixed to, because it was captured with a value for them.

A model is called as it always was: ``model(x, None)`` is what a graph without ``mask`` stands for, and
``model(x, mask)`` is not; of a graph with ``mask`` it is the other way round.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from embedl_deploy.errors import InputError
from embedl_deploy.validation.quoting import quoted

#: ``graph_module.meta`` entry of a :class:`FixedInputs`.
FIXED_INPUTS = "embedl_deploy_fixed_inputs"

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True)
class _Other:
    """Stands for a value that is not compared with others: a tensor, an object."""

    text: str

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class FixedInputs:
    """What a graph stands for, of what its model takes.

    Attributes:
        positional: The model's inputs that may be given by position, in its order, fixed or not.
        values: The value of each that is fixed, by name.
        needed: The inputs that there were examples of, by name, and whether ``None`` is their default: the code was
            followed with something there.
    """

    positional: tuple[str, ...]
    values: dict[str, Any]
    needed: dict[str, bool] = field(default_factory=dict)

    @staticmethod
    def of(positional: tuple[str, ...], values: dict[str, Any], needed: dict[str, bool]) -> "FixedInputs":
        """Fixed inputs that can be copied and pickled, whatever the values are."""
        plain = {k: v if _is_plain(v) else _Other(quoted(v)) for k, v in values.items()}
        return FixedInputs(positional, plain, needed)

    def without(
        self, model: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inputs of a call without those that are fixed.

        Inputs after a removed one are returned by keyword.

        Raises:
            InputError: A fixed input has another value, or an input that had an example is missing.
        """
        for name, value in (*zip(self.positional, args, strict=False), *kwargs.items()):
            if name in self.values and not _is_same(value, self.values[name]):
                raise InputError(
                    f"input {name!r} is {quoted(value)}, but the graph is fixed to {name}={self.values[name]!r}, the "
                    "value with which the model was transformed. To use another value, transform the model again with "
                    f"example inputs that have it: transform(model, args, kwargs={{{name!r}: ...}})."
                )
        given = {**dict(zip(self.positional, args, strict=False)), **kwargs}
        for name, is_none in self.needed.items():
            if given.get(name, None if is_none else ...) is None:
                raise InputError(missing_input(name, is_given=name in given, how="transformed with an example of it"))
        if not self.values:
            return args, kwargs
        taken = {str(node.target) for node in model.graph.find_nodes(op="placeholder")}
        gone = self.values.keys() - taken  # an input that was given as None stays
        first = next((i for i, name in enumerate(self.positional[: len(args)]) if name in gone), len(args))
        named = {**dict(zip(self.positional[first:], args[first:], strict=False)), **kwargs}
        return args[:first], {name: value for name, value in named.items() if name not in gone}


def missing_input(name: str, *, is_given: bool, how: str) -> str:
    """The message that an input is missing which the graph was captured with."""
    return (
        f"input {name!r} is {'None' if is_given else 'missing'}, but the model was {how}, and its graph follows the "
        "code for calls with that input. Pass it, or transform the model again without it."
    )


def without_fixed(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a graph's code takes of the inputs that its model is called with; for errors see :class:`FixedInputs`."""
    fixed = model.meta.get(FIXED_INPUTS) if isinstance(model, fx.GraphModule) else None
    return (args, kwargs) if fixed is None else fixed.without(model, args, kwargs)


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if type(value) is tuple else type(value) in _PLAIN


def _is_same(value: Any, fixed: Any) -> bool:
    return type(value) is type(fixed) and _is_plain(value) and bool(value == fixed)
