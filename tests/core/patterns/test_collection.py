"""Every pattern of a package, found in its files."""

import importlib
import sys

import pytest

from embedl_deploy.errors import PatternError
from embedl_deploy.patterns import patterns_in

HEAD = "from torch import nn\nfrom embedl_deploy.patterns import Pattern, Wildcard\n"


def pattern(name, tree):
    return f"class {name}(Pattern):\n    tree = {tree}\n    graft = nn.Sequential\n\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    def make(**files):
        folder = tmp_path / "patterns_of_a_test"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, text in files.items():
            (folder / f"{name}.py").write_text(HEAD + text)
        monkeypatch.syspath_prepend(tmp_path)
        return importlib.import_module("patterns_of_a_test")

    yield make
    for name in [name for name in sys.modules if name.startswith("patterns_of_a_test")]:
        del sys.modules[name]


def names(package):
    return [pattern.name for pattern in patterns_in(package)]


def test_those_that_take_more_nodes_come_first(package):
    found = package(
        a=pattern("One", "(nn.ReLU,)") + pattern("Three", "(nn.Conv2d, Wildcard(nn.ReLU, max_count=2))"),
        b=pattern("Any", "(nn.ReLU, Wildcard(nn.ReLU))"),
    )
    assert names(found) == ["Any", "Three", "One"]


def test_equals_come_by_file_and_line(package):
    found = package(b=pattern("A", "(nn.ReLU,)"), a=pattern("Z", "(nn.ReLU,)") + pattern("Y", "(nn.ReLU,)"))
    assert names(found) == ["Z", "Y", "A"]


def test_aliases_bases_and_imports_make_none(package):
    found = package(
        a=pattern("First", "(nn.ReLU,)") + "Alias = First\n" + pattern("_Base", "(nn.ReLU,)"),
        b="from patterns_of_a_test.a import First\n",
    )
    assert names(found) == ["First"]


def test_a_pattern_that_finds_its_places_itself_comes_first(package):
    own = "class Own(Pattern):\n    def match(self, graph_module):\n        return []\n\n"
    assert names(package(a=pattern("Two", "(nn.Conv2d, nn.ReLU)") + own)) == ["Own", "Two"]


def test_a_tree_that_is_none_is_an_error_that_names_the_pattern(package):
    with pytest.raises(PatternError, match=r"'Bad'.*Expected a tuple of elements"):
        patterns_in(package(a=pattern("Bad", "nn.ReLU")))
