"""Tables for people, without colour, at a width that fits the text."""

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

from embedl_deploy.patterns import Declined, PatternMatch
from embedl_deploy.patterns.causes import Why
from embedl_deploy.plan.state import PlanState

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 118


def render(*parts: "Table | str", width: int = WIDTH) -> str:
    """Tables and lines as plain text."""
    from rich.console import Console  # here, because it takes longer to import than all of the rest

    stream = StringIO()
    console = Console(file=stream, width=width, color_system=None, highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def new_table(title: str, *columns: str) -> "Table":
    """An empty table; the last column takes the room that is left."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns[:-1]:
        table.add_column(column, overflow="fold")
    table.add_column(columns[-1], overflow="fold", ratio=1)
    return table


def summarize_names(names: Sequence[str], most: int = 4) -> str:
    """The first few of many names."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f", … {more} more" if more > 0 else "")


def matches_table(matches: Sequence[PatternMatch]) -> "Table":
    """What is or was rewritten: a line per pattern, in order of first use."""
    table = new_table("Rewrites", "stage", "pattern", "count", "where (last node)")
    groups: dict[tuple[str, str], list[PatternMatch]] = {}
    for match in matches:
        groups.setdefault((match.stage, match.pattern_name), []).append(match)
    for (stage, name), group in groups.items():
        table.add_row(stage, name, str(len(group)), summarize_names([match.node_name for match in group]))
    return table


def reasons_table(title: str, rows: Sequence[tuple[str, str, str]], most: int = 20) -> "Table":
    """What was left, and why; at most ``most`` lines. Rows are (where, pattern or kind, reason)."""
    table = new_table(title, "at", "what", "why")
    for row in rows[:most]:
        table.add_row(*row)
    if len(rows) > most:
        table.add_row("…", f"{len(rows) - most} more", "")
    return table


def declined_rows(declined: Sequence[Declined], most_each: int = 3) -> list[tuple[str, str, str]]:
    """Refusals as rows of :func:`reasons_table`: of each pattern the first few, and how many more there are."""
    groups: dict[str, list[Declined]] = {}
    for refusal in declined:
        groups.setdefault(refusal.pattern_name, []).append(refusal)
    rows = []
    for name, group in groups.items():
        rows += [(refusal.node_names[0], name, refusal.reason) for refusal in group[:most_each]]
        if len(group) > most_each:
            rows.append(("…", name, f"and {len(group) - most_each} more of the kind"))
    return rows


def plan_table(plan: PlanState) -> str:
    """The matches of a plan, one a line, and what was declined.

    Matches that lie inside another, and would not be missed, are only counted.
    """
    table = new_table("Matches", "apply", "stage", "pattern", "nodes")
    inside = [match for match in plan if match.why is Why.OVERLAPS]
    for match in plan:
        if match in inside:
            continue
        nodes = " → ".join(match.node_names) or match.node_name
        table.add_row(
            "yes" if match.apply else "no",
            match.stage,
            match.pattern_name,
            nodes if not match.reason else f"{nodes}  [{match.reason}]",
        )
    applied = sum(match.apply for match in plan)
    total = sum(1 for _ in plan)
    hidden = f"{len(inside)} more matches want nodes that one of these has; plan.matches lists them" if inside else ""
    parts: list[Table | str] = [
        f"Plan for {plan.model_name} ({plan.capture_method} capture, "
        f"{'patterns given' if plan.backend is None else f'backend {plan.backend.name}'}): "
        f"{applied} of {total} matches to apply, {len(plan.declined)} declined",
        *(f"note: {note}" for note in plan.notes),
        table,
        *([hidden] if hidden else []),
    ]
    if plan.declined:
        parts.append(
            reasons_table("Declined", declined_rows(plan.declined, len(plan.declined)), most=len(plan.declined))
        )
    return render(*parts)
