"""Parses JSON from outside; every fault is the same error."""

import json
from typing import Any


class NotJsonError(ValueError):
    """A text is not JSON; the message says where and why."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        NotJsonError: It is not JSON, has NaN or infinity, which JSON does not have, a number of thousands of digits, or
            lists in lists that are nested too deep.
        TypeError: It is not text.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise NotJsonError("lists or objects are nested too deep") from None
    except ValueError as error:
        raise NotJsonError(str(error)) from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not in JSON")
