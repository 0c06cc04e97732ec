"""What the library says to people who call it from Python, in the words of the command line."""

import re

#: What is said, as a pattern, and what is said instead.
WORDS = (
    (r"report\.why_not\(name\)", "--why-not NAME"),
    (r"report\.why_not\('([^']*)'\)", r"--why-not \1"),
    (r"plan\.matches lists them", "plan --json lists them"),
    (
        r"plan\.matches\[node\]\['([^']*)'\]\.apply = False",
        r'"apply": false at each \1 in what `plan -o FILE` writes, and --plan FILE',
    ),
    (r"example inputs, transform\(model, args=\(\.\.\.\)\)", "example inputs, --input or --inputs"),
    (r"example inputs: pass args=\(x,\) to the call", "example inputs: pass --input or --inputs"),
    (r"pass example inputs, args=", "pass --input or --inputs"),
    (r"""trace=(['"])(\w+)\1""", r"--trace \2"),
)


def for_the_shell(text: str) -> str:
    """A message or report with options in the place of arguments."""
    for said, instead in WORDS:
        text = re.sub(said, instead, text)
    return text
