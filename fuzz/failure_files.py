"""A failure as a file that runs by itself: the network's source, the law's source, and what happened."""

import ast
import inspect
from pathlib import Path
from types import ModuleType

from fuzz.laws import FAMILIES, law, quantizing, subject
from fuzz.network import Network, write_network
from fuzz.outcome import Outcome
from fuzz.trying import NETWORK, try_network

_MAIN = """

if __name__ == "__main__":
    torch.set_num_threads(1)
    {law}.hold(Subject({seed}, make, inputs, halves={halves}, double={double}))
    print("held")
"""


def minimised(seed: int, outcome: Outcome, tries: int = 12) -> frozenset[object]:
    """Positions of blocks without which the same law is broken in the same way; each is tried once.

    Args:
        seed: The network's.
        outcome: What is to stay as it is.
        tries: The most networks that are tried.
    """
    if outcome.law not in FAMILIES:
        return frozenset()
    dropped: frozenset[object] = frozenset()
    parts: list[object] = ["output", "tied_head", "dtype", *reversed(range(write_network(seed).length))]
    for part in parts[:tries]:
        smaller = dropped | {part}
        if any(o.law == outcome.law and o.kind == outcome.kind for o in try_network(seed, [outcome.law], smaller)):
            dropped = smaller
    return dropped


def failure_text(network: Network, outcome: Outcome) -> str:
    """The file's text."""
    told = "\n".join(f"# {line}" for line in outcome.text.strip().splitlines())
    head = f"# Network {network.seed}, law {outcome.law}: exit 1 while it is broken.\n{told}\n\n"
    if outcome.law == NETWORK:
        return f"{head}{network.source}\n\nif __name__ == '__main__':\n    make()(*inputs()[0], **inputs()[1])\n"
    modules = [law, subject]
    if outcome.law in FAMILIES:
        family = FAMILIES[outcome.law]
        modules += [quantizing] * (family.__name__ == "fuzz.laws.files") + [family]
    texts = [network.source, *(_own(module) for module in modules)]
    main = _MAIN.format(law=outcome.law, seed=network.seed, halves=network.halves, double=network.double)
    return head + "\n\n".join(texts) + (main if outcome.law in FAMILIES else "")


def write_failure(folder: Path, seed: int, outcome: Outcome, dropped: frozenset[object]) -> Path:
    """Write a failure into a folder."""
    network = write_network(seed, dropped)
    name = outcome.law.strip("()").replace(" ", "_")
    path = folder / f"network_{seed}_{name}.py"
    path.write_text(failure_text(network, outcome), encoding="utf-8")
    return path


def _own(module: ModuleType) -> str:
    """A module's source without what it imports from the fuzzer, which stands above it, and without its head."""
    text = inspect.getsource(module)
    lines = text.splitlines()
    for node in ast.parse(text).body:
        ours = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fuzz.")
        doc = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.lineno == 1
        if ours or doc:
            assert node.end_lineno is not None
            for number in range(node.lineno - 1, node.end_lineno):
                lines[number] = ""
    return "\n".join(lines).strip("\n")
