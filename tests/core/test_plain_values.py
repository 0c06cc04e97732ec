"""Dataclasses from plain values."""

from dataclasses import dataclass, field

import pytest

from embedl_deploy.plain_values import value_of


@dataclass(frozen=True)
class Inner:
    number: float

    @property
    def twice(self):
        return 2 * self.number


@dataclass(frozen=True)
class Outer:
    parts: tuple[Inner, ...]
    names: dict[str, str] = field(default_factory=dict)
    is_whole: bool = True
    note: str | None = None


def test_values_of_every_kind():
    plain = {"parts": [{"number": 1}], "names": {"a": "b"}, "is_whole": False, "note": None}
    assert value_of(Outer, plain) == Outer((Inner(1.0),), {"a": "b"}, False)
    assert value_of(Outer, {"parts": []}) == Outer(())


def test_what_follows_from_the_fields_is_not_read():
    assert value_of(Inner, {"number": 1.5, "twice": 99}) == Inner(1.5)


def test_others_are_refused_unless_only_part_is_wanted():
    with pytest.raises(ValueError, match=r"parts\[0\] has an entry 'more', which is not known"):
        value_of(Outer, {"parts": [{"number": 1, "more": 2}]})
    assert value_of(Outer, {"parts": [{"number": 1, "more": 2}], "other": 3}, partly=True) == Outer((Inner(1.0),))


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"parts": [], "names": []}, r"names is \[\]; expected an object"),
        ({"parts": [], "names": {"a": 1}}, r"names\['a'\] is 1; expected a text"),
        ({"parts": [], "is_whole": 1}, "is_whole is 1; expected true or false"),
        ({"parts": [{"number": 10**400}]}, r"parts\[0\].number is 1000.*; expected a finite number"),
        ({"parts": [{"number": True}]}, "expected a finite number"),
        ({}, "it has no 'parts'"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(plain, message):
    with pytest.raises(ValueError, match=message):
        value_of(Outer, plain)
