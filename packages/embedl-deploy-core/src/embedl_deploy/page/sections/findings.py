"""What ``check`` found in the file, rule by rule, and how to mend it."""

from embedl_deploy.page.file_reports import Finding
from embedl_deploy.page.html import Html, code, join, tag
from embedl_deploy.page.section import Section, Source, folded, module_named
from embedl_deploy.page.words import counted

#: Places of one rule that are shown at once.
_MOST = 12


def findings(source: Source) -> Section | None:
    """The section, if a file was checked."""
    done = source.run.check
    if done is None:
        return None
    by_rule: dict[str, list[Finding]] = {}
    for finding in done.findings:
        by_rule.setdefault(finding.rule, []).append(finding)
    verdict = "is accepted" if done.ok else "is not accepted"
    head = (
        f"{done.model} {verdict} by the rules of {done.backend}: {counted(len(done.rules_checked), 'rule')} checked, "
        + (f"{counted(len(done.findings), 'place')} found." if done.findings else "nothing found.")
    )
    failed = (
        tag("p", f"Rules that failed: {', '.join(done.rules_failed)}.", class_="error") if done.rules_failed else None
    )
    rules = [_rule(source, found) for found in by_rule.values()]
    undecided = [
        tag("li", tag("b", place.rule), " ", code(place.node or "the whole file"), f": {place.reason}")
        for place in done.undecided
    ]
    body = join(tag("p", head), failed, rules, folded("Not judged", undecided))
    return Section("check", "Check", "Findings of the check", body)


def _rule(source: Source, found: list[Finding]) -> Html:
    first = found[0]
    places = [
        tag("li", code(f.node), f" ({f.operator})", _in_module(source, f.module), f": {f.message}") for f in found
    ]
    return tag(
        "article",
        tag("h3", tag("span", first.severity, class_=f"chip s-{first.severity}"), " ", first.rule, ": ", first.title),
        tag("p", tag("b", "Mend: "), first.remedy),
        tag("ul", places[:_MOST]),
        folded("More", places[_MOST:]),
        class_=f"finding s-{first.severity}",
    )


def _in_module(source: Source, module: str | None) -> Html | None:
    name = module_named(source, module)
    return None if name is None else join(" in ", name)
