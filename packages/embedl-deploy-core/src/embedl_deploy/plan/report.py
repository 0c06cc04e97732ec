"""The report of a transformation, as a mapping and as tables."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from torch import fx

from embedl_deploy.graph.effects import overwrites
from embedl_deploy.graph.foreign import holds_values
from embedl_deploy.graph.gradient_hooks import has_gradient_hooks
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.metadata import NOT_TAKEN
from embedl_deploy.graph.module_paths import nodes_named
from embedl_deploy.modules import FusedModule
from embedl_deploy.page import render_page
from embedl_deploy.patterns import Declined, MatchStatus, PatternMatch, sources_of
from embedl_deploy.patterns.causes import Why
from embedl_deploy.plan.causes import Answer, NotTaken, Verdict, WhyUnfused
from embedl_deploy.plan.drawing import graph_rows, kind_of
from embedl_deploy.plan.plan import TransformationPlan
from embedl_deploy.plan.refusing import refuse_storing
from embedl_deploy.plan.tables import declined_rows, matches_table, reasons_table, render, summarize_names
from embedl_deploy.validation.checked import checked


class TransformationReport(Mapping[str, Any]):
    """What was rewritten, what was not and why, and what is unfused.

    As a mapping it holds plain data under ``applied_count``, ``skipped_count``, ``declined_count``, ``failed_count``,
    ``applied``, ``skipped``, ``declined``, ``failed``, ``unfused``, ``unfused_causes``, ``unsupported``, ``capture``,
    ``notes``, ``backend``, ``model`` and ``graph``, the transformed graph's nodes with what they read. Printed, it is
    a table.

    Attributes:
        plan: The plan that was carried out.
        matches: Every match that was found while doing so.
        declined: Places where a pattern's tree fits but was not applied.
        unfused: Operators outside fused modules: node name → kind.
        unsupported: Those of them that the backend says its hardware cannot run: node name → reason.
        unfused_causes: Why each of them is unfused: node name → kind.
    """

    @checked
    def __init__(
        self,
        plan: TransformationPlan,
        model: fx.GraphModule,
        matches: list[PatternMatch],
        declined: list[Declined],
    ) -> None:
        self.plan = plan
        self.matches = matches
        self.declined = declined
        self.unfused: dict[str, str] = {}
        self.unsupported: dict[str, str] = {}
        self.unfused_causes: dict[str, WhyUnfused] = {}
        #: By the name of a node of the transformed model, that of its module, or of a node that it stands for.
        self._planned: dict[str, str] = {}
        for node in model.graph.nodes:
            if node.op.startswith("call_"):
                self._planned[node.name] = str(node.target) if node.op == "call_module" else sources_of(node)[0]
            if not node.op.startswith("call_") or isinstance(get_module(node), FusedModule):
                continue
            if not node.users and not overwrites(node):
                continue  # an assertion or guard: it computes nothing that the model gives
            if holds_values(node):
                continue
            self.unfused[node.name] = kind_of(node)
            reason = plan.backend.explain_unfused(node) if plan.backend is not None else None
            if reason is not None:
                self.unsupported[node.name] = reason
            self.unfused_causes[node.name] = _why_unfused(node, unsupported=reason is not None)
        self._notes = [*plan.notes, *_lost_hooks(plan, model)]
        self._data = self._as_data() | {"graph": graph_rows(model.graph)}

    def __reduce__(self) -> NoReturn:
        refuse_storing(self)

    def _next_in_line(self, failed: PatternMatch) -> str:
        """Who has the nodes of a match that failed, as an addition to its reason."""
        names = set(failed.node_names)
        applied = self.with_status(MatchStatus.APPLIED)
        takers = [m.pattern_name for m in applied if m.why is Why.MOVED_UP and names & set(m.node_names)]
        origin = f" (from {failed.pattern.origin})" if failed.pattern.origin else ""
        return origin + (f"; moved up: {', '.join(dict.fromkeys(takers))}" if takers else "")

    @checked
    def with_status(self, status: MatchStatus) -> list[PatternMatch]:
        """The matches that came to a given end."""
        return [match for match in self.matches if match.status is status]

    def _as_data(self) -> dict[str, Any]:
        applied = self.with_status(MatchStatus.APPLIED)
        skipped = self.with_status(MatchStatus.SKIPPED)
        failed = self.with_status(MatchStatus.FAILED)

        def plain(match: PatternMatch) -> dict[str, Any]:
            entry: dict[str, Any] = {"node": match.node_name, "pattern": match.pattern_name, "stage": match.stage}
            entry["nodes"] = list(match.node_names)
            if match.cause is not None:
                entry |= {"reason": match.reason, "cause": match.cause.why.value}
            if match.status is MatchStatus.FAILED and match.pattern.origin:
                entry["origin"] = match.pattern.origin
            if match.replaced_by:
                entry["replaced_by"] = list(match.replaced_by)
            return entry

        return {
            "model": self.plan.model_name,
            "backend": None if self.plan.backend is None else self.plan.backend.name,
            "capture": self.plan.capture_method,
            "notes": list(self._notes),
            "applied_count": len(applied),
            "skipped_count": len(skipped),
            "declined_count": len(self.declined),
            "failed_count": len(failed),
            "applied": [plain(match) for match in applied],
            "skipped": [plain(match) for match in skipped],
            "declined": [
                {"nodes": list(d.node_names), "pattern": d.pattern_name, "reason": d.reason} for d in self.declined
            ],
            "failed": [plain(match) for match in failed],
            "unfused": dict(self.unfused),
            "unsupported": dict(self.unsupported),
            "unfused_causes": {name: why.value for name, why in self.unfused_causes.items()},
        }

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def to_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return dict(self._data)

    def to_html(self) -> str:
        """The report as a page that needs nothing else; :func:`embedl_deploy.page.write_page` joins several."""
        return render_page(transformation=self)

    @checked
    def why_not(self, node: str, pattern: str | None = None) -> list[str]:
        """Why patterns did not take a node; see :meth:`TransformationPlan.why_not`.

        Names of the transformed model's nodes, as reports have them, are known as well.
        """
        return [str(answer) for answer in self.answers(node, pattern)]

    @checked
    def answers(self, node: str, pattern: str | None = None) -> list[Answer]:
        """The same as :meth:`why_not` for programs: the pattern, a code and the reason, apart."""
        graphs = (self.plan.model.graph, self.plan.converted.graph)
        if not any(nodes_named(graph, node) for graph in graphs):
            node = self._planned.get(node, node)
        planned = self.plan.answers(node, pattern)
        failed = [
            m for m in self.with_status(MatchStatus.FAILED) if node in (*m.node_names, m.node_name) or not m.node_names
        ]
        failed = [match for match in failed if pattern in (None, match.pattern_name)]
        names = {match.pattern_name for match in failed}
        return [
            *(Answer(node, Verdict.FAILED, m.pattern_name, reason=m.reason, why=m.why) for m in failed),
            *(each for each in planned if each.verdict is not Verdict.APPLIES or each.pattern not in names),
        ]

    def __str__(self) -> str:
        backend = "" if self.plan.backend is None else f" for {self.plan.backend.info.title}"
        lines: list[Any] = [
            f"{self.plan.model_name}{backend}: {self['applied_count']} rewrites applied, "
            f"{self['skipped_count']} skipped, {self['declined_count']} declined, {self['failed_count']} failed"
            f" ({self.plan.capture_method} capture)",
            *(f"note: {note}" for note in self._notes),
            matches_table(self.with_status(MatchStatus.APPLIED)),
        ]
        failed = self.with_status(MatchStatus.FAILED)
        if failed:
            rows = [(m.node_name, m.pattern_name, f"{m.reason}{self._next_in_line(m)}") for m in failed]
            lines.append(reasons_table("Failed and undone", rows))
        switched_off = [m for m in self.with_status(MatchStatus.SKIPPED) if m.why is not Why.OVERLAPS]
        if switched_off:
            rows = [(m.node_name, m.pattern_name, m.reason) for m in switched_off]
            lines.append(reasons_table("Skipped", rows))
        if self.declined:
            lines.append(reasons_table("Declined", declined_rows(self.declined)))
        if self.unsupported:
            rows = [(name, self.unfused[name], reason) for name, reason in self.unsupported.items()]
            lines.append(reasons_table("Cannot run on this hardware", rows))
        kinds: dict[str, list[str]] = {}
        for name, kind in self.unfused.items():
            kinds.setdefault(kind, []).append(name)
        listed = [f"{kind} ×{len(names)} ({summarize_names(names, most=2)})" for kind, names in kinds.items()]
        left = summarize_names(listed, most=12)
        lines.append(f"Unfused: {left or 'nothing'}. Call report.why_not(name) to see why.")
        return render(*lines)


def _why_unfused(node: fx.Node, *, unsupported: bool) -> WhyUnfused:
    if unsupported:
        return WhyUnfused.UNSUPPORTED
    told = node.meta.get(NOT_TAKEN)
    return told.why if isinstance(told, NotTaken) else WhyUnfused.NO_MATCH


def _lost_hooks(plan: TransformationPlan, model: fx.GraphModule) -> Iterator[str]:
    """Say which parameters with hooks for their gradient a rewrite has replaced by others."""
    kept = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    tensors = plan.captured.tensors().items()
    lost = [name for name, t in tensors if t is not None and has_gradient_hooks(t) and id(t) not in kept]
    if lost:
        yield (
            f"gradient hooks are lost, because rewrites replaced the tensors that had them: {summarize_names(lost)}. "
            "Register them again on the parameters of the result"
        )
