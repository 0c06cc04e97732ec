"""The law that a report is the same in every process, whatever seeds the hashes of strings."""

from fuzz.laws.law import Broken, law
from fuzz.laws.subject import Subject


def report_text(subject: Subject) -> str:
    """The report, in the order in which things were found."""
    return str(subject.result.report)


@law(share=0.05)
def hash_seed(subject: Subject) -> None:
    """Another process, with other hashes, reports the same."""
    from fuzz.companion import report_elsewhere  # a process, which only this law starts

    here, there = report_text(subject), report_elsewhere(subject.seed)
    if here != there:
        lines = [(a, b) for a, b in zip(here.splitlines(), there.splitlines(), strict=False) if a != b]
        raise Broken(f"another process reports otherwise: {lines[:1]}")
