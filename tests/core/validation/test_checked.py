"""The decorator: what it hands on, what it refuses, and in which words."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from embedl_deploy.errors import ArgumentError, QuantizationConfigError
from embedl_deploy.validation.checked import checked
from embedl_deploy.validation.quoting import quoted

if TYPE_CHECKING:
    from nowhere import Thing


class Speed(Enum):
    SLOW = "slow"
    FAST = "fast"


@checked
def work(
    model: nn.Module | None = None,
    flag: bool = False,
    count: int | None = None,
    rate: float | Literal["auto"] = "auto",
    path: str | os.PathLike[str] = ".",
    speed: Speed | str = Speed.SLOW,
    names: Sequence[str] = (),
    shape: tuple[int, ...] = (),
    pair: tuple[int, float] = (0, 0.0),
    ranges: Mapping[str, Sequence[int]] | None = None,
    plain: dict[str, Any] | None = None,
    data: Iterable[Any] = (),
    skip: Collection[type[nn.Module]] = (),
    then: Callable[[int], int] = abs,
    thing: "Thing | None" = None,
    anything: Any = None,
    *more: torch.Tensor,
    **settings: bool,
) -> dict[str, Any]:
    """Do it.

    Args:
        count: How many; ``None`` for
            :class:`all <x.All>` of them. And more.
        *more: Further tensors.
    """
    return dict(locals())


ByName = type("Thing", (), {})  # what is imported for type checkers only is told by its name


@pytest.mark.parametrize(
    ("name", "value", "handed_on"),
    [
        ("flag", np.True_, True),
        ("count", np.int64(3), 3),
        ("count", np.uint8(3), 3),
        ("rate", np.float32(0.5), 0.5),
        ("rate", 3, 3),
        ("rate", float("inf"), float("inf")),
        ("speed", "fast", Speed.FAST),
        ("names", torch.Size([]), torch.Size([])),
        ("shape", [1, np.int32(2)], (1, 2)),
        ("shape", torch.Size([1, 2]), torch.Size([1, 2])),
        ("pair", [1, 0.5], (1, 0.5)),
        ("ranges", {"x": [1, np.int64(2)]}, {"x": [1, 2]}),
        ("path", Path("a"), Path("a")),
        pytest.param("thing", ByName(), None, id="a class of the user's own"),
        ("skip", {nn.ReLU}, {nn.ReLU}),
        ("then", nn.ReLU, nn.ReLU),
    ],
    ids=str,
)
def test_what_means_the_same_is_taken(name, value, handed_on):
    found = work(**{name: value})[name]
    if handed_on is not None:
        assert found == handed_on
        assert type(found) is type(handed_on)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model", nn.ReLU, "work: model is the class ReLU; expected a module or None. Pass an instance of it."),
        ("flag", 1, "flag is 1; expected True or False."),
        ("count", True, "count is True; expected a whole number (of at most 64 bits) or None."),
        ("count", 2**63, "count is 9223372036854775808; expected"),
        ("count", "3", 'or None. Its documentation says: "How many".'),
        ("rate", "fast", "rate is 'fast'; expected a number (not NaN) or 'auto'."),
        ("rate", float("nan"), "rate is nan"),
        ("path", "a\0b", "expected a path"),
        ("path", b"a", "path is b'a'; expected a path."),
        ("speed", "FAST", "speed is 'FAST'; expected Speed.SLOW or Speed.FAST (or its value, such as 'slow')."),
        ("names", "ab", "names is 'ab'; expected a list or a tuple, each a string."),
        ("names", ["a", 3], "names[1] is 3; expected"),
        ("names", {"a"}, "names is {'a'}"),
        ("shape", [1, 2.0], "shape[1] is 2.0"),
        ("pair", (1,), "pair is (1,); expected a tuple of 2"),
        ("ranges", {"x": [1, None]}, "ranges['x'][1] is None"),
        ("ranges", {1: [1]}, "ranges (a key) is 1; expected None, or a dictionary from a string to"),
        ("data", "ab", "data is 'ab'; expected an iterable."),
        ("skip", [nn.ReLU()], "skip[0] is a module of class ReLU; expected a list, a tuple or a set, each a class"),
        ("then", 3, "then is 3; expected a function."),
        ("thing", 3, "thing is 3; expected a Thing or None."),
        ("more_", 3, "settings is 3; expected True or False."),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_words(name, value, words):
    with pytest.raises(ArgumentError) as caught:
        work(**{name: value})
    assert words in str(caught.value)


def test_by_place_as_by_name():
    with pytest.raises(ArgumentError, match="flag is 'no'"):
        work(None, "no")
    with pytest.raises(ArgumentError, match=r'more is 3; expected a tensor.+"Further tensors"'):
        work(None, False, None, 1.0, ".", "slow", (), (), (0, 0), None, None, (), (), abs, None, None, torch.ones(1), 3)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):  # as from any function
        checked(lambda x: x)()


def test_an_iterable_is_not_read():
    def rows():
        yield pytest.fail("it was read")

    work(data=rows())


def test_classes():
    @checked(error=QuantizationConfigError)
    @dataclass(frozen=True)
    class Settings:
        """Settings.

        Attributes:
            sizes: Of all.
        """

        sizes: tuple[int, ...]

        def __post_init__(self) -> None:
            assert isinstance(self.sizes, tuple)  # has been made one

    @checked
    class Point(NamedTuple):
        x: float

    with pytest.raises(
        QuantizationConfigError, match=r'Settings: sizes is 3; expected a tuple, .*documentation says: "Of all'
    ):
        Settings(3)
    assert replace(Settings([1]), sizes=[2]) == Settings((2,))
    with pytest.raises(ArgumentError, match="Point: x is 'a'"):
        Point("a")
    assert Point(1.0)._replace(x=2.0) == (2.0,)


class Nameless:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.ones(2, 3), "a tensor, float32[2, 3]"),
        (np.ones((2, 3)), "an array, float64[2, 3]"),
        ([nn.Linear(1, 1), nn.ReLU], "[a module of class Linear, the class ReLU]"),
        (abs, "the function abs"),
        ({"a": torch.ones(1)}, "{'a': a tensor, float32[1]}"),
    ],
    ids=str,
)
def test_quoted(value, words):
    assert quoted(value) == words


def test_what_is_quoted_is_short():
    assert len(quoted("x" * 10_000)) <= 80
    assert len(quoted(list(range(10_000)))) < 100
    assert "Nameless" in quoted(Nameless())
