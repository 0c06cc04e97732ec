"""A check as a pytest item: runs with a fixed random state, and fails with advice."""

import inspect
import logging
from os import PathLike
from pathlib import Path
from typing import Any

import pytest
import torch

from embedl_deploy.exclusive import random_numbers_kept
from embedl_deploy.logs import quiet
from embedl_deploy.testing.failures import DoesNotApply, complaint_of
from embedl_deploy.testing.subjects import BackendSubject, NetworkSubject, PatternSubject, owner_of
from embedl_deploy.testing.table import Check

#: Name of the property of a report that holds what a check tells although it holds.
TOLD = "embedl_deploy_conformance"
Subject = PatternSubject | BackendSubject | NetworkSubject


class ConformanceItem(pytest.Item):
    """One check of one pattern, network or backend.

    Attributes:
        check: The check.
        subject: What it looks at.
    """

    def __init__(self, *, check: Check[Any], subject: Subject, **more: Any) -> None:
        super().__init__(**more)
        self.check = check
        self.subject = subject
        self.add_marker(pytest.mark.conformance)
        self.extra_keyword_matches.update({subject.plugin or subject.backend.name, subject.label, check.id})

    def runtest(self) -> None:
        """Look; skip with the reason if there is nothing to look at."""
        # torch notes every step of an export in a log that pytest would print below the advice.
        with random_numbers_kept(), quiet("torch.__trace", below=logging.WARNING):
            torch.manual_seed(0)
            try:
                told = self.check.run(self.subject)
            except DoesNotApply as reason:
                pytest.skip(f"{self.subject.label}: {reason}")
        if told is not None:
            self.user_properties.append((TOLD, f"{self.subject.label} {told}"))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The advice; with ``--full-trace`` the traceback."""
        if self.config.getoption("fulltrace", False) or not isinstance(excinfo.value, Exception):
            return super().repr_failure(excinfo, style)
        return advice(self.check, self.subject, excinfo.value)

    def reportinfo(self) -> tuple[PathLike[str] | str, int | None, str]:
        """Where the pattern is defined, and the title."""
        path, line = _definition(self.subject)
        return (
            path or self.path,
            line,
            f"{self.subject.plugin or self.subject.backend.name}: {self.subject.label} {self.check.title}",
        )


def advice(check: Check[Any], subject: Subject, error: BaseException) -> str:
    """What failed, on what, what was found and expected, and what to do."""
    complaint = complaint_of(error, subject.packages)
    lines = [f"{owner_of(subject)} fails a check: {subject.label} {check.title}."]
    if complaint.where:
        lines.append(f"  where:    {complaint.where}")
    lines += [f"  found:    {complaint.found}", f"  expected: {complaint.expected}", f"  why:      {check.why}"]
    lines.append(f"  do:       {check.advice}")
    path, line = _definition(subject)
    if path is not None:
        lines.append(f"  defined:  {path}:{(line or 0) + 1}")
    return "\n".join(lines)


def _definition(subject: Subject) -> tuple[Path | None, int | None]:
    """File and line, from zero, of a pattern's class."""
    if not isinstance(subject, PatternSubject):
        return None, None
    try:
        line = inspect.getsourcelines(type(subject.pattern))[1] - 1
        return Path(inspect.getfile(type(subject.pattern))), line
    except (OSError, TypeError):  # made in an interactive session, or compiled
        return None, None
