"""The reference of codes in JSON, from the enumerations that they are the values of."""

import importlib
import inspect
import re
from enum import Enum

_ENTRY = re.compile(r"^    (?P<name>[A-Z_]+): (?P<text>.+?)(?=\n    [A-Z_]+: |\Z)", re.MULTILINE | re.DOTALL)


def code_reference(address: str) -> str:
    """A table of the values of an enumeration, ``module.Class``, with what its docstring says of each.

    Raises:
        KeyError: The docstring does not say what a member means.
    """
    module, _, name = address.rpartition(".")
    kinds: type[Enum] = getattr(importlib.import_module(module), name)
    told = (inspect.getdoc(kinds) or "").partition("Attributes:\n")[2]
    meanings = {entry["name"]: " ".join(entry["text"].split()) for entry in _ENTRY.finditer(told)}
    rows = (f"| `{kind.value}` | {meanings[kind.name].replace('``', '`')} |" for kind in kinds)
    return "\n".join(("| code | meaning |", "|---|---|", *rows))
