"""The page of codes has every enumeration whose values stand in JSON, and says what each value means."""

import importlib
import inspect
import pkgutil
import re
import sys
from enum import Enum
from pathlib import Path

import pytest

import embedl_deploy

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "_extensions"))
PAGE = (ROOT / "docs" / "reference" / "codes.md").read_text()
ADDRESSES = re.findall(r"^<!-- generated: codes (\S+) -->$", PAGE, re.MULTILINE)


def test_every_enumeration_of_causes_is_on_the_page():
    rooms = [module.name for module in pkgutil.walk_packages(embedl_deploy.__path__, "embedl_deploy.")]
    modules = map(importlib.import_module, (name for name in rooms if name.endswith((".causes", ".corrections"))))
    found = {
        f"{module.__name__}.{name}"
        for module in modules
        for name, kinds in vars(module).items()
        if inspect.isclass(kinds) and issubclass(kinds, Enum) and kinds.__module__ == module.__name__
    }
    assert len(found) >= 6
    assert found < set(ADDRESSES)


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_code_has_a_meaning(address):
    from handbook.codes import code_reference

    module, _, name = address.rpartition(".")
    kinds = getattr(importlib.import_module(module), name)
    rows = code_reference(address).splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [kind.value for kind in kinds]
    assert all(re.fullmatch(r"\| `[a-z_]+` \| .{10,}\. \|", row) for row in rows), rows
