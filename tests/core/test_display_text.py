"""No decision hangs on the words of our own messages and reports: those change, and are asked for by codes."""

import ast
import re
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[2] / "packages"
#: Texts that others write, and that are read for want of anything better; some are quoted by ours.
OTHERS = {
    "\n\nWhile executing": "torch.fx, behind the error of a module",
    "\nWhile executing %": "torch.fx, the same",
    "Name: ": "TensorRT's log of layers",
    ", LayerType: ": "TensorRT's log of layers",
    "declined: ": "recipes of earlier releases, whose corrections have no codes",
}
ASKING = {
    *("startswith", "endswith", "removeprefix", "removesuffix"),
    *("partition", "rpartition", "split", "find", "index", "count"),
}
#: A quick look at a file before it is parsed.
_MAY_ASK = re.compile(rf"\.({'|'.join(sorted(ASKING))})\(|[\"'A-Z] (not )?in |[!=]= ")


def _text(node):
    """The words of a literal, or of the literal parts of an f-string; empty for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return max((_text(part) for part in node.values), key=len, default="")
    return ""


def _literals(node, constants):
    """Texts that an expression may stand for: a literal, a tuple of them, or a constant of the module."""
    if isinstance(node, ast.Name):
        node = constants.get(node.id, node)
    nodes = node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node]
    return [(part, text) for part in nodes if (text := _text(part))]


def _asked(tree):
    """Where a text is looked for in another one: the expressions, and the texts."""
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ASKING
            and node.args
        ):
            yield from _literals(node.args[0], constants)
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn, ast.Eq, ast.NotEq)):
            container = isinstance(node.comparators[0], (ast.Tuple, ast.List, ast.Set, ast.Dict))
            if not (isinstance(node.ops[0], (ast.In, ast.NotIn)) and container):
                yield from _literals(node.left, constants)
            if isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
                yield from _literals(node.comparators[0], constants)


def _places(node):
    """Where a node and its parts begin."""
    return {(part.lineno, part.col_offset) for part in ast.walk(node) if isinstance(part, ast.expr)}


def _written(tree, apart):
    """All texts of a module but for documentation and what stands at some places."""
    nodes = list(ast.walk(tree))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    first = [node.body[0] for node in nodes if isinstance(node, documented) and node.body]
    documents = [each.value for each in first if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)]
    left_out = apart.union(*map(_places, documents))
    for node in nodes:
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and (node.lineno, node.col_offset) not in left_out:
            yield node.value


def own_words_asked_for(sources):
    """Texts of two words or more that are looked for, and are written elsewhere: file, line and text."""
    asked = {path: list(_asked(ast.parse(source))) for path, source in sources.items() if _MAY_ASK.search(source)}
    words = [
        (path, node.lineno, text)
        for path, found in asked.items()
        for node, text in found
        if len(text.split()) > 1 or text.endswith(": ")
    ]
    written = []
    for path, source in sources.items():
        if any(text.strip() in source for _, _, text in words):
            apart = set().union(*(_places(node) for node, _ in asked.get(path, ())))
            written += _written(ast.parse(source), apart)
    everything = "\0".join(written)
    return [entry for entry in words if entry[2].strip() in everything]


def test_our_own_words_are_not_asked_for():
    sources = {str(path.relative_to(PACKAGES)): path.read_text() for path in sorted(PACKAGES.glob("*/src/**/*.py"))}
    assert len(sources) > 400
    assert [found for found in own_words_asked_for(sources) if found[2] not in OTHERS] == []


WRITTEN = 'def say(x):\n    """declined: it is documented"""\n    return f"declined: {x} has hooks"\n'


@pytest.mark.parametrize(
    "line",
    [
        'told.startswith("declined: ")',
        '"has hooks" in told',
        "_WORDS in told",
        'told.startswith(("folded", "declined: "))',
        'told.partition(" has hooks")[0]',
        'any(f"{x} has hooks" in line for line in told)',
        'told == "declined: "',
    ],
)
def test_a_question_about_words_is_found(line):
    asking = f"_WORDS = 'has hooks'\n\ndef ask(told, x):\n    return {line}\n"
    assert [entry[:2] for entry in own_words_asked_for({"a.py": WRITTEN, "b.py": asking})] in (
        [("b.py", 4)],
        [("b.py", 1)],
    )


@pytest.mark.parametrize(
    "line", ['"Could not allocate" in str(error)', '"declined" in codes', 'name.startswith("is_")']
)
def test_words_of_others_and_names_are_not(line):
    assert own_words_asked_for({"a.py": WRITTEN, "b.py": f"def ask(error, codes, name):\n    return {line}\n"}) == []
