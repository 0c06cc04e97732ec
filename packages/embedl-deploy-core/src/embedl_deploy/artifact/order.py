"""Checks that the nodes of an ONNX file are in topological order, which everything that walks the graph relies on."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from embedl_deploy.errors import InputError
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir


@checked
def check_order(model: "ir.Model", what: str) -> None:
    """Look for cycles, and for values that are read and that nothing gives.

    Nodes may stand in another order than that in which they can be computed: ONNX does not allow it, but compilers do.
    :func:`check_sorted` asks that.

    Args:
        model: The model: its graph, the graphs in attributes, and local functions.
        what: What it is called in messages.

    Raises:
        InputError: There are some.
    """
    _check(model.graph, set(), what)
    for function in model.functions.values():
        _check(function, set(), what)


@checked
def check_sorted(model: "ir.Model", what: str) -> None:
    """Look whether nodes stand in an order in which they can be computed, as ONNX wants it.

    Args:
        model: A model that :func:`check_order` takes.
        what: What it is called in messages.

    Raises:
        InputError: They do not.
    """
    _check_sorted(model.graph, what)
    for function in model.functions.values():
        _check_sorted(function, what)


def _check_sorted(graph: "ir.Graph | ir.Function", what: str) -> None:
    waiting = set(graph)
    for node in graph:
        for value in _read_by(node):
            maker = value.producer()
            if maker is not None and maker in waiting:
                raise InputError(
                    f"{what} is not valid ONNX: its nodes are not in topological order: {_name(node)} reads "
                    f"{value.name!r}, which {_name(maker)} computes further down. Sort them: model = "
                    "onnx_ir.load(path), model.graph.sort(), onnx_ir.save(model, path)."
                )
        for inner in _graphs_in(node):
            _check_sorted(inner, what)
        waiting.discard(node)


def _check(graph: "ir.Graph | ir.Function", around: "set[ir.Value]", what: str) -> None:
    import onnx_ir as ir

    given = around | {*graph.inputs, *(graph.initializers.values() if isinstance(graph, ir.Graph) else ())}
    nodes = list(graph)
    reads = {node: list(_read_by(node)) for node in nodes}
    for node in nodes:
        for value in node.inputs:
            if value is not None and value.producer() is None and value not in given:
                raise InputError(
                    f"{what} cannot be computed: {_name(node)} reads {value.name!r}, which nothing in the file gives. "
                    "Export the model again."
                )
        for inner in _graphs_in(node):
            _check(inner, given, what)
    makers = {node: [maker for value in reads[node] if (maker := value.producer()) in reads] for node in nodes}
    cycle = _cycle(makers)
    if cycle:
        path = " → ".join(map(_name, cycle[:5])) + (f" → … ({len(cycle)} nodes)" if len(cycle) > 5 else "")
        raise InputError(
            f"{what} cannot be computed: its nodes are in a cycle, each reads what the one before it gives, the first "
            f"what the last gives: {path}. Export the model again."
        )
    for value in graph.outputs:
        if value.producer() is None and value not in given:
            raise InputError(
                f"{what} cannot be computed: nothing in the file gives its output {value.name!r}. Export the model "
                "again."
            )


def _cycle(makers: "dict[ir.Node, list[ir.Node]]") -> "list[ir.Node]":
    """Nodes that wait for each other, in the order of the data; empty if all can be computed."""
    done: set[ir.Node] = set()
    for node in makers:
        path: dict[ir.Node, Iterator[ir.Node]] = {} if node in done else {node: iter(makers[node])}
        while path:
            last = next(reversed(path))
            maker = next((each for each in path[last] if each not in done), None)
            if maker is None:
                path.popitem()
                done.add(last)
            elif maker in path:
                waiting = list(path)
                return waiting[waiting.index(maker) :][::-1]
            else:
                path[maker] = iter(makers[maker])
    return []


def _read_by(node: "ir.Node") -> "Iterator[ir.Value]":
    """What a node reads, graphs in its attributes included."""
    yield from (value for value in node.inputs if value is not None)
    for graph in _graphs_in(node):
        for inner in graph:
            yield from _read_by(inner)
        yield from graph.outputs


def _graphs_in(node: "ir.Node") -> "Iterator[ir.Graph]":
    import onnx_ir as ir

    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _name(node: "ir.Node") -> str:
    return f"{node.name or '(unnamed)'!r} ({node.op_type})"
