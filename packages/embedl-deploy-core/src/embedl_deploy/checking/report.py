"""The report of a check, as a table and as plain values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from embedl_deploy.backend import Severity
from embedl_deploy.page import render_page
from embedl_deploy.plan.tables import new_table, render
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    from rich.table import Table

#: Lines of one rule in the table, and in the list of what could not be judged.
_MOST_OF_A_RULE = 8

_Item = TypeVar("_Item")


@checked
@dataclass(frozen=True)
class Finding:
    """A node that breaks a rule.

    Attributes:
        rule: Id of the rule.
        severity: What it costs.
        node: Name of the ONNX node; if it has none, of its first output.
        operator: Its operator, with the domain if it is not ONNX's own.
        module: Path of the PyTorch module that it was exported from, or ``None`` if the file does not say.
        message: What is there and what the rule expects.
        title: What the rule asks.
        remedy: How to fix it.
    """

    rule: str
    severity: Severity
    node: str
    operator: str
    module: str | None
    message: str
    title: str
    remedy: str

    def to_dict(self) -> dict[str, Any]:
        """Strings and ``None``, for JSON."""
        return {**vars(self), "severity": self.severity.value}


class WhyNotJudged(Enum):
    """Why a rule could not judge a place; the values are stable, and stand beside the words in JSON.

    Attributes:
        NOT_KNOWN: The file does not say what the rule has to know.
        RULE_FAILED: The rule raised.
    """

    NOT_KNOWN = "not_known"
    RULE_FAILED = "rule_failed"


@checked
@dataclass(frozen=True)
class NotJudged:
    """A place that a rule is about and could not judge.

    Attributes:
        rule: Id of the rule.
        node: Name of the ONNX node; ``None`` if it is the whole file.
        operator: Its operator; ``None`` with ``node``.
        module: Path of the PyTorch module; ``None`` if there is no node or the file does not say.
        reason: What is not known, or the error of the rule.
        cause: Which of the two.
    """

    rule: str
    node: str | None
    operator: str | None
    module: str | None
    reason: str
    cause: WhyNotJudged = WhyNotJudged.NOT_KNOWN

    def to_dict(self) -> dict[str, Any]:
        """Strings and ``None``, for JSON."""
        return {**vars(self), "cause": self.cause.value}


@checked
@dataclass(frozen=True)
class CheckReport:
    """What the rules of a backend say about a file.

    Attributes:
        model: Path of the file, or the name of the graph.
        backend: Name of the backend.
        findings: What breaks a rule: errors first, then in the order of the graph.
        undecided: What could not be judged.
        rules_checked: Ids of the backend's rules, all of which were asked; ``ONNX-1`` and ``ONNX-2`` always are.
        rules_failed: Ids of the rules that find errors, and failed themselves.
    """

    model: str
    backend: str
    findings: tuple[Finding, ...]
    undecided: tuple[NotJudged, ...]
    rules_checked: tuple[str, ...]
    rules_failed: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the rules that find errors found none, and none failed: ``sys.exit(not report.ok)`` on a server."""
        return not self.of(Severity.ERROR) and not self.rules_failed

    @checked
    def of(self, severity: Severity) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity is severity]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as values that ``json.dumps`` takes."""
        return {
            "model": self.model,
            "backend": self.backend,
            "ok": self.ok,
            "rules_checked": list(self.rules_checked),
            "rules_failed": list(self.rules_failed),
            "findings": [finding.to_dict() for finding in self.findings],
            "undecided": [place.to_dict() for place in self.undecided],
        }

    def to_html(self) -> str:
        """The report as a page that needs nothing else; :func:`embedl_deploy.page.write_page` joins several."""
        return render_page(check=self)

    def __str__(self) -> str:
        if not self.rules_checked and self.ok:
            none = f"backend {self.backend!r} has no rules for ONNX files"
            return f"{self.model} is valid ONNX. Nothing else was checked: {none}."
        counts = [_count(len(self.of(severity)), severity.value) for severity in Severity if severity.value != "info"]
        counts.append(_count(len(self.of(Severity.INFO)), "note"))
        if self.rules_failed:
            counts.append(f"{_count(len(self.rules_failed), 'rule')} failed")
        parts: list[Table | str] = [
            f"{self.model} for {self.backend}: {', '.join(counts)} ({_count(len(self.rules_checked), 'rule')} checked"
            f"{f', {len(self.undecided)} places not judged' if self.undecided else ''})"
        ]
        if self.findings:
            parts += [self._table(), self._remedies()]
        if self.undecided:
            parts.append(self._undecided_table())
        return render(*parts)

    def _table(self) -> "Table":
        table = new_table("Findings", "", "rule", "module", "node", "what")
        for rule, shown, more in _by_rule(self.findings, lambda finding: (finding.severity.value, finding.rule)):
            for f in shown:
                table.add_row(f.severity.value, f.rule, f.module or "", f"{f.node} ({f.operator})", f.message)
            if more:
                table.add_row(*rule, "…", f"{more} more", "")
        return table

    def _remedies(self) -> "Table":
        table = new_table("Rules and fixes", "rule", "requires", "fix")
        for finding in {finding.rule: finding for finding in self.findings}.values():
            table.add_row(finding.rule, finding.title, finding.remedy)
        return table

    def _undecided_table(self) -> "Table":
        table = new_table("Not judged", "rule", "node", "why")
        for (rule,), shown, more in _by_rule(self.undecided, lambda place: (place.rule,)):
            for place in shown:
                where = "(the whole file)" if place.node is None else f"{place.node} ({place.operator})"
                table.add_row(rule, where, place.reason)
            if more:
                table.add_row(rule, "…", f"{more} more")
        return table


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _by_rule(
    items: Sequence[_Item], key: Callable[[_Item], tuple[str, ...]]
) -> list[tuple[tuple[str, ...], list[_Item], int]]:
    """Groups in order of first appearance: the key, the first few of the group, and how many more there are."""
    groups: dict[tuple[str, ...], list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return [(key, group[:_MOST_OF_A_RULE], len(group[_MOST_OF_A_RULE:])) for key, group in groups.items()]
