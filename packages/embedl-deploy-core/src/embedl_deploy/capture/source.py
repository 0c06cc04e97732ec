"""The source line and statement that a node came from."""

import ast
import functools
import linecache
import re

from torch import fx

_FRAME = re.compile(r'File "(.+)", line (\d+)')


def source_of(node: fx.Node) -> str | None:
    """File and line of the model's code that a node is from, where the capture has noted them."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    return ":".join(frames[-1]) if frames else None


def statement_at(filename: str, line: int) -> str:
    """The source of the statement that a line is part of: all lines of a simple one, that line alone of an ``if``."""
    lines = linecache.getlines(filename)
    first, last = _simple_statements(filename, "".join(lines)).get(line, (line, line))
    return "".join(lines[first - 1 : last])


@functools.lru_cache(maxsize=32)
def _simple_statements(filename: str, source: str) -> dict[int, tuple[int, int]]:
    """The first and last line of the statement that each line belongs to, for statements that hold no others."""
    try:
        tree = ast.parse(source, filename)
    except SyntaxError:  # a cell of a notebook, a file that has changed
        return {}
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            first, last = node.lineno, node.end_lineno or node.lineno
            found.update(dict.fromkeys(range(first, last + 1), (first, last)))
    return found
