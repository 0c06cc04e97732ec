"""What was rewritten: the graph of modules, and the list of patterns with their reasons."""

from collections import Counter
from collections.abc import Iterable, Sequence

from embedl_deploy.page.blocks import Block, blocks_of, path_of
from embedl_deploy.page.html import Html, breakable, code, join, link, tag
from embedl_deploy.page.model_reports import GraphNode, Match, Transformation
from embedl_deploy.page.modules import ModuleLine
from embedl_deploy.page.section import Section, Source, folded
from embedl_deploy.page.words import LEGEND, chip, colour_of, counted, size


def rewrites(source: Source) -> Section | None:
    """The section, if something was transformed."""
    done = source.run.transformation
    if done is None:
        return None
    head = (
        f"{counted(len(done.applied), 'rewrite')} applied, {len(done.skipped)} skipped, {len(done.declined)} declined, "
        f"{len(done.failed)} failed"
    )
    notes = [tag("p", f"Note: {note}.", class_="note") for note in done.notes]
    body = join(tag("p", head), notes, _Graph(source, done).drawn() if done.graph else None, _patterns(done))
    return Section("rewrites", "Rewrites", "What was rewritten", body)


def _patterns(done: Transformation) -> Html:
    counts = Counter((match.stage, match.pattern) for match in done.applied)
    where: dict[tuple[str, str], list[str]] = {}
    for match in done.applied:
        where.setdefault((match.stage, match.pattern), []).append(match.node or match.nodes[-1])
    applied = [
        tag("li", tag("b", pattern), f" {stage} ×{count}: ", code(", ".join(where[stage, pattern])))
        for (stage, pattern), count in counts.items()
    ]
    switched_off = [match for match in done.skipped if "overlaps" not in match.reason]
    failed = _reasons(done.failed)
    lists = [
        ("Failed and undone", failed),
        ("Cannot run on this hardware", [tag("li", code(n), f": {why}") for n, why in done.unsupported.items()]),
        ("Applied, by pattern", applied),
        ("Switched off", _reasons(switched_off)),
        ("Declined, and why", _reasons(done.declined)),
    ]
    return join(folded(title, entries, is_open=entries is failed) for title, entries in lists)


def _reasons(matches: Sequence[Match]) -> list[Html]:
    return [
        tag("li", code(match.node or ", ".join(match.nodes)), " ", tag("b", match.pattern), f": {match.reason}")
        for match in matches
    ]


class _Graph:
    """The drawing: a line for each node and block; the page's script draws the edges beside them."""

    def __init__(self, source: Source, done: Transformation) -> None:
        self._source = source
        self._graph = done.graph
        self._number = {node.node: at for at, node in enumerate(done.graph)}
        self._moved = max((line.activation_bytes for line in source.modules.lines), default=0)

    def drawn(self) -> Html:
        """Legend, buttons and lines."""
        colours = dict.fromkeys(colour_of(line.precision) for line in self._lines(self._graph))
        legend = [tag("span", said, class_=f"chip p-{name}") for name, said in LEGEND.items() if name in colours]
        buttons = tag(
            "span",
            tag("button", "Blocks", type="button", data_blocks="close"),
            tag("button", "All modules", type="button", data_blocks="open"),
            class_="buttons",
        )
        whole = blocks_of(self._graph)
        rows = [self._member(member, 0, "") for member in whole.members]
        return join(tag("div", buttons, legend, class_="legend"), tag("div", rows, class_="graph", id="graph"))

    def _member(self, member: Block | GraphNode, depth: int, around: str) -> Html:
        if isinstance(member, GraphNode):
            return self._node(member, depth, around)
        rows = [self._member(inner, depth + 1, member.path) for inner in member.members]
        nodes = list(member.nodes())
        lines = self._lines(nodes)
        counts = Counter(colour_of(line.precision) for line in lines if line.precision)
        stack = tag(
            "span",
            [tag("i", class_=f"p-{name or 'other'}", style=f"flex:{count}") for name, count in counts.most_common()],
            class_="stack",
            title=", ".join(f"{count} × {LEGEND.get(name, 'other')}" for name, count in counts.most_common()),
        )
        head = tag(
            "summary",
            _rail(""),
            tag("span", breakable(_inside(member.name, around)), class_="name", title=member.name),
            tag("span", counted(len(lines), "call"), class_="kind"),
            stack,
            self._cost(lines),
            class_="row",
            style=_indent(depth),
        )
        return tag("details", head, rows, class_="block", open=member.is_open)

    def _node(self, node: GraphNode, depth: int, around: str) -> Html:
        line = self._source.modules.of_node.get(node.node)
        name = breakable(_inside(path_of(node), around))
        numbers = [str(self._number[read]) for read in node.inputs if read in self._number]
        fused = [match.pattern for match in line.rewrites] if line is not None else []
        return tag(
            "div",
            _rail(colour_of(line.precision) if line is not None else ""),
            tag(
                "span",
                name if line is None or not line.is_listed else link(f"m{line.number}", name),
                class_="name",
                title=path_of(node),
            ),
            tag("span", breakable(node.kind), class_="kind", title=" then ".join(fused) or None),
            tag("span", chip(line.precision) if line is not None else None, class_="type"),
            self._cost([line] if line is not None else []),
            class_="row" if line is None or line.within is None else "row function",
            style=_indent(depth),
            id=f"g{self._number[node.node]}",
            data_n=self._number[node.node],
            data_in=" ".join(numbers) or None,
        )

    def _lines(self, nodes: Iterable[GraphNode]) -> list[ModuleLine]:
        of_node = self._source.modules.of_node
        return list({id(of_node[n.node]): of_node[n.node] for n in nodes if n.node in of_node}.values())

    def _cost(self, lines: Sequence[ModuleLine]) -> Html | None:
        if not self._moved:
            return None
        moved = sum(line.activation_bytes for line in lines)
        return tag("span", size(moved) if moved else None, class_="cost")


def _rail(colour: str) -> Html:
    return tag("span", tag("span", class_="lanes"), tag("span", class_=f"dot p-{colour or 'other'}"), class_="rail")


def _indent(depth: int) -> str:
    return f"--depth:{depth}"


def _inside(path: str, around: str) -> str:
    return path.removeprefix(f"{around}.") if around else path
