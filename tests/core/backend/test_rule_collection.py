"""Every rule of a package, found in its files."""

import importlib
import sys

import pytest

from embedl_deploy.backend import rules_in

HEAD = "from embedl_deploy.backend import Rule, Severity\n"


def rule(name: str, of: str, base: str = "Rule") -> str:
    words = f"id, severity, title, remedy = {of!r}, Severity.ERROR, 'a', 'b'"
    return f"class {name}({base}):\n    {words}\n    def find(self, model): return []\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "rules_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "a.py").write_text(HEAD + rule("Ten", "ACME-10") + rule("_Base", "ACME-00") + rule("Last", "OTHER-1"))
    (folder / "b.py").write_text(HEAD + "from rules_of_a_test.a import Ten, _Base\n" + rule("Nine", "ACME-9", "_Base"))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("rules_of_a_test")
    for name in [name for name in sys.modules if name.startswith("rules_of_a_test")]:
        del sys.modules[name]


def test_each_once_in_the_order_of_ids(package):
    assert [each.id for each in rules_in(package)] == ["ACME-9", "ACME-10", "OTHER-1"]
