"""Parses JSON from outside, with one error for every fault; replaces numbers that JSON does not have."""

import json
import math
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


def finite(data: Any) -> Any:
    """The same without infinity and NaN, which JSON does not have: ``None`` stands for them; tuples become lists."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return data
