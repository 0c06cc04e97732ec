"""Rewords messages for the command line, with options instead of Python arguments."""

import re
from collections.abc import Callable


def _shape_option(name: str, shapes: str) -> str:
    """``--shape x=1,3/8,3/32,3`` for ``((1, 3), (8, 3), (32, 3))``."""
    return f"--shape {name}={'/'.join(shape.replace(' ', '').rstrip(',') for shape in _SHAPE.findall(shapes))}"


_SHAPE = re.compile(r"\(([\d, ]+)\)")

#: What is said, as a pattern, and what is said instead.
WORDS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"Call report\.why_not\(name\)", "Use --why-not NAME"),
    (r"report\.why_not\('([^']*)'\)", r"--why-not \1"),
    (r"plan\.matches lists them", "plan --json lists them"),
    (
        r"plan\.matches\[node\]\['([^']*)'\]\.apply = False",
        r'"apply": false at each \1 in what `plan -o FILE` writes, and --plan FILE',
    ),
    (r"example inputs, transform\(model, args=\(\.\.\.\)\)", "example inputs, --input or --inputs"),
    (r"example inputs: pass args=\(x,\) to the call", "example inputs: pass --input or --inputs"),
    (r"pass example inputs, args=", "pass --input or --inputs"),
    (r"for example shapes=\{+'([^']*)': ([^}]*)\}+", lambda found: f"for example {_shape_option(*found.groups())}"),
    (r"""trace=(['"])(\w+)\1""", r"--trace \2"),
)


def for_the_shell(text: str) -> str:
    """A message or report with options in place of arguments."""
    for said, instead in WORDS:
        text = re.sub(said, instead, text)
    return text
