"""Removes nodes that a rewrite left without a reader, such as the sizes of a view."""

from collections.abc import Collection, Iterable

from torch import fx

from embedl_deploy.graph.effects import overwrites
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.signatures import bind_call

#: Further operations that draw random numbers.
_DRAWING = frozenset(
    {
        "bernoulli",
        "multinomial",
        "normal",
        "poisson",
        "binomial",
        "rrelu",
        "gumbel_softmax",
    }
)


def remove_unused(left: Iterable[fx.Node], replaced: Collection[fx.Node], keep: Collection[str]) -> None:
    """Remove nodes without readers from a graph, and what only they read.

    What has effects stays: a write in place, an assertion, a draw of random numbers, a call of a module, which may have
    hooks or statistics, and a function from outside torch, of which nothing is known. A node that a rewrite has
    replaced is gone in meaning already, so a call of a module goes, too.

    Args:
        left: Nodes that may have lost their last reader, those removed meanwhile included.
        replaced: Those of them that were replaced.
        keep: Names of nodes that stay whatever they are.
    """
    waiting = list(left)
    while waiting:
        node = waiting.pop()
        if node._erased or node.users or node.name in keep or not is_pure(node, was_replaced=node in replaced):
            continue
        inputs = node.all_input_nodes
        node.graph.erase_node(node)
        waiting.extend(inputs)


def remove_what_nobody_reads(graph_module: fx.GraphModule) -> None:
    """Remove from a graph what gives a value that nobody reads, and does nothing else; as :func:`remove_unused` does.

    A pattern asks who reads a value, and such a node would be a reader: the model's code computes it for what it does
    not return.
    """
    nodes = list(graph_module.graph.nodes)
    remove_unused(nodes, (), ())
    if len(graph_module.graph.nodes) < len(nodes):
        graph_module.recompile()


def is_pure(node: fx.Node, *, was_replaced: bool = False) -> bool:
    """Whether a node only computes a value, the same for the same inputs.

    Args:
        node: The node.
        was_replaced: Whether something else has taken its place, so that a call of a module has no say any more.
    """
    if node.op == "get_attr":
        return True
    if node.op == "call_module":
        return was_replaced and not overwrites(node)
    if node.op not in ("call_function", "call_method") or overwrites(node):
        return False
    if node.op == "call_function" and node.is_impure():
        return False
    name = operation(node)
    if not isinstance(name, str):
        return node.target is getattr
    return not (name.startswith("_assert") or draws(node))


def draws(node: fx.Node) -> bool:
    """Whether a function may draw random numbers. Dropout that is fixed in evaluation mode, or drops none, does not."""
    name = operation(node)
    if not isinstance(name, str):
        return False
    bound = bind_call(node)
    given = {} if bound is None else bound.values
    if name == "scaled_dot_product_attention":
        return given.get("dropout_p") != 0
    if "dropout" in name:
        return given.get("training", given.get("train")) is not False and given.get("p") != 0
    return name.startswith("rand") or name in _DRAWING
