"""Finds a small set of nodes that must stay in float32 for correct outputs.

What leaves float16's range has to, and what reads a value that only float32 holds. Where the outputs are still off,
nodes whose values are too small, or too close together, for float16's steps are kept as well, and then left out again
one after the other as long as the outputs stay right.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import fx

from embedl_deploy.float16.emulation import Call, run_emulated, run_exact
from embedl_deploy.float16.report import GOOD_DB, Float16Limit
from embedl_deploy.float16.watching import Watching
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.operators import operation
from embedl_deploy.modules import QuantStub
from embedl_deploy.verify import signal_to_noise

#: What keeping small values has to gain, and what leaving some of them out may cost.
_GAIN_DB, _LOSS_DB = 3.0, 1.0


@dataclass(frozen=True)
class Kept:
    """What stays in float32.

    Attributes:
        nodes: The nodes.
        sqnr_before: Signal to noise of the outputs with everything in float16, in dB.
        sqnr: The same with these nodes in float32.
    """

    nodes: frozenset[fx.Node]
    sqnr_before: float
    sqnr: float


class Search:
    """Tries sets of nodes on recorded calls.

    Args:
        model: In float32.
        calls: What it is called with.
        seen: What the nodes compute in float32.
    """

    def __init__(self, model: fx.GraphModule, calls: Sequence[Call], seen: Watching) -> None:
        self.model, self.calls, self.seen = model, calls, seen
        self.wanted = [run_exact(model, call) for call in calls]
        self.order = {node: place for place, node in enumerate(model.graph.nodes)}

    def run(self) -> Kept:
        """Find the nodes."""
        before, broken = self._try(frozenset())
        nodes = self._closed(node for node, excess in self.seen.found.items() if excess.limit is not Float16Limit.STEP)
        sqnr, broken = self._try(nodes) if nodes else (before, broken)
        while broken - nodes:
            nodes = self._closed(nodes | broken)
            sqnr, broken = self._try(nodes)
        if sqnr < GOOD_DB:
            nodes, sqnr = self._with_small_values(nodes, sqnr)
        return Kept(nodes, before, sqnr)

    def _with_small_values(self, nodes: frozenset[fx.Node], sqnr: float) -> tuple[frozenset[fx.Node], float]:
        """Keep as many of the nodes as well whose values float16's steps are too coarse for as helps."""
        small = {node for node, excess in self.seen.found.items() if excess.limit is Float16Limit.STEP}
        small |= {source for node in small for source in node.all_input_nodes}
        more = self._closed(nodes | small)
        best, _ = self._try(more)
        if not best >= sqnr + _GAIN_DB:
            return nodes, sqnr
        enough = min(GOOD_DB, best - _LOSS_DB)
        size = (len(more - nodes) + 1) // 2
        while size:
            for part in _parts(sorted(more - nodes, key=self.order.__getitem__), size):
                fewer = self._closed(more.difference(part))
                if len(fewer) < len(more):
                    reached, _ = self._try(fewer)
                    if reached >= enough:
                        more, best = fewer, reached
            size //= 2
        return more, best

    def _try(self, nodes: frozenset[fx.Node]) -> tuple[float, frozenset[fx.Node]]:
        """Signal to noise of the outputs of the worst call, in dB, and nodes that make infinities and NaN."""
        worst, broken = math.inf, frozenset[fx.Node]()
        for call, wanted in zip(self.calls, self.wanted, strict=True):
            outputs, here = run_emulated(self.model, call, nodes)
            worst, broken = min(worst, signal_to_noise(wanted, outputs)), broken | (here - self.seen.infinite)
        return worst, broken

    def _closed(self, nodes: Iterable[fx.Node]) -> frozenset[fx.Node]:
        """Nodes, and those that have to stay in float32 with them.

        They are the readers of values that float16 does not hold, other calls of the same modules, what takes values
        out of a tuple, and quantizers before what stays: compilers want no cast between the two.
        """
        kept = self._with_what_they_write_to({node for node in nodes if node.op != "output"})
        shared = {node.target for node in kept if node.op == "call_module"}
        for node in self.order:
            reads = any(
                source in kept and (source in self.seen.outgrown or operation(node) == "getitem")
                for source in node.all_input_nodes
            )
            if node.op != "output" and (reads or (node.op == "call_module" and node.target in shared)):
                kept.add(node)
        kept |= {
            node
            for node in self.order
            if node.op == "call_module" and isinstance(get_module(node), QuantStub) and node.users.keys() <= kept
        }
        return frozenset(self._with_what_they_write_to(kept))

    def _with_what_they_write_to(self, kept: set[fx.Node]) -> set[fx.Node]:
        """Nodes, and those in whose memory they write what is read there later: a cast between them would be a copy."""
        for writer, others in self.seen.written.items():
            place = self.order[writer]
            read_later = {node for node in others if any(self.order[user] > place for user in node.users)}
            group = read_later | {node for node in others if writer in node.users}
            for node in reversed(self.order):
                if node in others and not group.isdisjoint(node.users):
                    group.add(node)
            if read_later and not kept.isdisjoint(group | {writer}):
                kept = kept | group | {writer}
        return kept


def _parts(nodes: list[fx.Node], size: int) -> Iterator[list[fx.Node]]:
    for start in range(0, len(nodes), size):
        yield nodes[start : start + size]
