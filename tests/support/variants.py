"""JSON values with something wrong in them."""

from collections.abc import Iterator
from typing import Any


def variants(plain: Any) -> Iterator[Any]:
    """A JSON value with one thing in it after the other replaced by what does not belong there."""
    wrong = (None, True, -1, 2**70, 1e308 * 10, "words", [], {}, [None], {"a": 1})
    if isinstance(plain, (dict, list)):
        for key in list(plain) if isinstance(plain, dict) else range(len(plain)):
            for other in (*variants(plain[key]), *wrong):
                copy = plain.copy()
                copy[key] = other
                yield copy
        if isinstance(plain, dict):
            yield from ({k: v for k, v in plain.items() if k != key} for key in plain)
