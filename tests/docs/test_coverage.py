"""What is public is documented, and what is documented is there."""

import ast
import importlib
import re
from pathlib import Path

import click
import pytest
from handbook.api import ROOMS, public_names
from handbook.hooks import hook_names
from handbook.patterns import BACKENDS as LISTED
from handbook.patterns import listed_patterns, patterns_of

import embedl_deploy
import embedl_deploy_onnxruntime
import embedl_deploy_sensai_stub
from embedl_deploy.backend import get_backend
from embedl_deploy.backend.contract import hookspecs
from embedl_deploy.checking.checker import RULES_OF_EVERY_BACKEND
from embedl_deploy.cli.program import program
from embedl_deploy.numerics import Precision
from support.documents import DOCS, expanded, headings, pages, without_code

BACKENDS = ("tensorrt", "onnxruntime", "sensai")
TEXTS = {page: page.read_text(encoding="utf-8") for page in pages()}


def found(expression):
    """(page's name, what is found) for every place in a document that fits a regular expression."""
    return {(page.name, match) for page, text in TEXTS.items() for match in re.findall(expression, text)}


def resolve(name):
    """The object of a dotted name, however deep the module that holds it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            value = getattr(value, part)
        return value
    raise AssertionError(f"there is no {name}")


def packages_with_public_names():
    """Packages whose ``__init__`` has an ``__all__``, by reading, not by importing, the sources."""
    for folder in {
        Path(entry)
        for entry in [*embedl_deploy.__path__, *embedl_deploy_onnxruntime.__path__, *embedl_deploy_sensai_stub.__path__]
    }:
        for file in folder.rglob("__init__.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            names = [
                t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if hasattr(t, "id")
            ]
            if "__all__" in names:
                yield ".".join(file.parent.relative_to(folder.parent).parts)


def test_every_room_has_a_page():
    assert set(packages_with_public_names()) | {"embedl_deploy.errors"} == set(ROOMS)
    assert {page.stem for page in (DOCS / "reference" / "api").glob("*.md")} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_described_and_every_description_is_of_something(room):
    text = expanded(f"reference/api/{room}.md")
    described = re.findall(r"^\.\. (?:autoclass|autofunction|py:data|py:attribute):: (\S+)$", text, re.MULTILINE)
    assert sorted(described) == sorted(f"{room}.{name}" for name in public_names(room))
    for name in described:
        resolve(name)
    for name, body in re.findall(r"^\.\. py:data:: (\S+)\n\n(.*)$", text, re.MULTILINE):
        assert body.strip(), f"{name} has no comment that says what it is"


def test_names_in_texts_exist():
    for page, name in found(r"`(embedl_deploy(?:\.\w+)+)"):
        assert resolve(name) is not None, page


def test_every_hook_has_a_section_and_a_row():
    specified = [name for name in dir(hookspecs) if hasattr(getattr(hookspecs, name), f"{hookspecs.PROJECT}_spec")]
    assert sorted(hook_names()) == specified
    assert headings(expanded("reference/hooks.md"))[1:] == hook_names()
    rows = re.findall(r"^\| `(embedl_deploy_\w+)\(", TEXTS[DOCS / "backends.md"], re.MULTILINE)
    assert sorted(rows) == specified
    implemented = found(r"def (embedl_deploy_\w+)\(")
    assert implemented
    assert {name for _, name in implemented} <= set(specified)


def test_every_pattern_has_a_section_with_a_picture():
    for kind in ("conversions", "fusions"):
        text = expanded(f"{kind}.md")
        names = [pattern.name for backend in LISTED for pattern in listed_patterns(backend, kind)]
        assert [heading for heading in headings(text) if heading.endswith("Pattern")] == names
        assert (
            text.count("<figcaption>before</figcaption>") == text.count("<figcaption>after</figcaption>") == len(names)
        )


def test_every_pattern_that_is_named_exists():
    public = {pattern.name for name in BACKENDS for k in ("conversions", "fusions") for pattern in patterns_of(name, k)}
    own = found(r"class (\w+Pattern)\(")
    own |= {(page, name.split("=")[0].strip()) for page, name in found(r"\w+Pattern = \w+")}
    for page, name in found(r"\b([A-Z]\w+Pattern)\b"):
        assert name in public or (page, name) in own, f"{page} names {name}"


def test_every_rule_has_a_section_and_a_row():
    rules = [*RULES_OF_EVERY_BACKEND, *(rule for backend in BACKENDS for rule in get_backend(backend).check_rules)]
    assert [h for h in headings(expanded("reference/rules.md")) if h[-1].isdigit()] == [rule.id for rule in rules]
    rows = re.findall(r"^\| ([A-Z]+-\w+) \| (\w+) \| (.+) \|$", TEXTS[DOCS / "checking.md"], re.MULTILINE)
    assert rows == [(rule.id, rule.severity.value, rule.title) for rule in rules]
    named = found(r"\b((?:TRT|ORT|SENSAI)-[QO]?\d+)\b")
    assert {name for _, name in named} <= {rule.id for rule in rules}


def test_every_number_format_is_listed():
    names = [precision.name for precision in Precision]
    rows = re.findall(r"^\| `Precision\.(\w+)`", TEXTS[DOCS / "quantization.md"], re.MULTILINE)
    assert sorted(rows) == sorted(names)
    (row,) = re.findall(r"^\| `--precision (.*?) \|", TEXTS[DOCS / "command_line.md"], re.MULTILINE)
    assert sorted(re.findall(r"\w+", row)) == sorted(name.lower() for name in names)


def test_every_option_that_is_named_exists():
    assert isinstance(program, click.Group)
    options = {name: options_of(command) for name, command in program.commands.items()}
    page = TEXTS[DOCS / "command_line.md"]
    named = re.findall(r"`(-{1,2}[a-z][\w-]*)", without_code(page))
    assert len(named) > 30
    assert set(named) <= {"--version"}.union(*options.values())
    calls = [
        (page, call) for page, call in found(r"embedl-deploy ([a-z][\w-]+ [^\n`\"]*)") if call.split()[0] in options
    ]
    assert len(calls) > 10
    for document, call in calls:
        command, *words = call.split()
        given = {word.partition("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
        assert given <= options[command], f"{document}: embedl-deploy {call}"


def options_of(command):
    """All spellings of a command's options."""
    return {"-h", "--help"}.union(*((*entry.opts, *entry.secondary_opts) for entry in command.params))


def test_the_reference_of_commands_is_made_from_the_program():
    text = expanded("reference/command_line.md")
    directive = r"^\.\. click:: ([\w.]+):(\w+)\n   :prog: embedl-deploy\n   :nested: full$"
    ((module, name),) = re.findall(directive, text, re.MULTILINE)
    assert getattr(importlib.import_module(module), name) is program
    for command in program.commands.values():
        assert command.help, command.name
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, f"{command.name} {parameter.name}"


def test_rooms_of_the_picture_are_those_of_the_table():
    from handbook.architecture import BACKENDS as OUTSIDE
    from handbook.architecture import imports_between_rooms
    from handbook.rooms import documented_rooms

    text = expanded("design.md")
    drawn = re.findall(r"<text [^>]*>([\w.]+)</text>", text)
    assert sorted(drawn) == sorted([*documented_rooms(), *OUTSIDE])
    floors = list(documented_rooms())
    for room, other in imports_between_rooms():
        assert room in OUTSIDE or floors.index(other) < floors.index(room)
