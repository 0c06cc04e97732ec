"""The reference of a backend's patterns, each with its example before and after, drawn."""

import inspect
import re

from torch import fx

from embedl_deploy import transform
from embedl_deploy.backend import get_backend
from embedl_deploy.patterns import Example, Pattern, get_module
from handbook.graphs import Box, draw


def patterns_of(backend: str, kind: str) -> list[Pattern]:
    """A backend's ``"conversions"`` or ``"fusions"``, in the order in which they are tried."""
    return list(getattr(get_backend(backend), kind))


#: In the order in which their patterns are listed.
BACKENDS = ("tensorrt", "sensai", "onnxruntime")


def listed_patterns(backend: str, kind: str) -> list[Pattern]:
    """Those of a backend that no backend before it has on its list: patterns of core stand there once."""
    before = BACKENDS[: BACKENDS.index(backend)]
    known = {type(pattern) for other in before for pattern in patterns_of(other, kind)}
    return [pattern for pattern in patterns_of(backend, kind) if type(pattern) not in known]


def pattern_reference(backend: str, kind: str) -> str:
    """A section for each pattern: what it does, where quantizers go, and a picture of its first example."""
    return "\n\n".join(_section(pattern, backend) for pattern in listed_patterns(backend, kind))


def _section(pattern: Pattern, backend: str) -> str:
    points = ", ".join(f"`{point.name}`" for point in sorted(pattern.qdq_points, key=lambda point: point.name))
    parts = [
        f"### {pattern.name}",
        f"```{{eval-rst}}\n{inspect.getdoc(type(pattern))}\n```",
        f"Places for quantizers: {points}." if points else "",
        before_and_after(pattern, backend),
    ]
    return "\n\n".join(part for part in parts if part)


def before_and_after(pattern: Pattern, backend: str) -> str:
    """Both graphs of the pattern's first example, captured as the backend wants it, side by side where there is room.

    Raises:
        ValueError: The pattern declares no example, or is not applied to it.
    """
    examples = pattern.examples()
    if not examples:
        raise ValueError(f"{pattern.name} declares no examples(), of which its picture is drawn.")
    example: Example = examples[0]
    before = transform(example.model, example.args, patterns=[], backend=backend).model
    result = transform(example.model, example.args, patterns=[pattern], backend=backend, strict=True)
    applied = result.report["applied"]
    if not applied:
        raise ValueError(f"{pattern.name} is not applied to its own example: {result.report}")
    old = {name for entry in applied for name in entry["nodes"]}
    new = {name for entry in applied for name in entry.get("replaced_by", ())}
    pictures = []
    for graph, marked, caption in ((before, old, "before"), (result.model, new, "after")):
        drawing = draw_graph(graph, marked, f"{pattern.name}: {caption}")
        pictures.append(f"<figure>\n<figcaption>{caption}</figcaption>\n{drawing}\n</figure>")
    note = f"The example: {example.note.rstrip('.')}.\n\n" if example.note else ""
    return note + '<div class="graphs">\n' + "\n".join(pictures) + "\n</div>"


def draw_graph(graph_module: fx.GraphModule, marked: set[str], title: str) -> str:
    """Draw a graph, with some of its nodes marked by name."""
    nodes = [node for node in graph_module.graph.nodes if node.users or node.op == "output"]
    boxes = {node.name: _box(node, node.name in marked) for node in nodes}
    lines = [(source.name, node.name) for node in nodes for source in node.all_input_nodes]
    return draw(boxes, lines, title)


def _box(node: fx.Node, marked: bool) -> Box:
    if node.op == "placeholder":
        return Box(str(node.target), "value")
    if node.op == "output":
        return Box("output", "value")
    kind = "marked" if marked else "plain"
    if node.op == "get_attr":
        return Box(str(node.target).rpartition(".")[2], "value", str(node.target))
    module = get_module(node) if node.op == "call_module" else None
    if module is not None:
        return Box(type(module).__name__, kind, str(node.target))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return Box(re.sub(r"^_+|_+$", "", name), kind, node.name)
