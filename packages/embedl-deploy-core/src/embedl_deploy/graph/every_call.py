"""Which values of a graph are the same in every call: computed from parameters, buffers, literals and sizes alone.

Unlike a weight (:mod:`embedl_deploy.graph.state_values`) they may depend on the sizes of inputs, go through layers, and
be written to. What the numbers of an input are written to is another in every call, and so is all that shares its
memory.
"""

from torch import fx

from embedl_deploy.graph.carried import tells_no_numbers
from embedl_deploy.graph.dead_code import draws
from embedl_deploy.graph.effects import Effects, written_values

#: Why what computes such a value stays in float.
SAME_IN_EVERY_CALL = "what it computes is the same in every call, of parameters and sizes alone"


def same_in_every_call(graph: fx.Graph) -> frozenset[fx.Node]:
    """The values of a graph that no number of an input and no random number goes into."""
    effects = Effects(graph)
    written = effects.written_attributes()
    writes = [(node, value) for node in graph.nodes for value in written_values(node)]
    varying: set[fx.Node] = set()
    while True:
        before = len(varying)
        for node in graph.nodes:
            if tells_no_numbers(node):
                continue
            kept_for_next = node.op == "get_attr" and str(node.target) in written
            if node.op == "placeholder" or kept_for_next or draws(node) or not varying.isdisjoint(node.all_input_nodes):
                varying.add(node)
        for writer, value in writes:
            if writer in varying:
                varying |= {value, *effects.memory_of(value)}
        if len(varying) == before:
            return frozenset(node for node in graph.nodes if node not in varying)
