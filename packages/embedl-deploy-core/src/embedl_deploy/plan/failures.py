"""Reports that a method of a pattern failed, in the report, the log and errors."""

import logging
import sys
import traceback
from pathlib import Path

from embedl_deploy.errors import PatternError
from embedl_deploy.patterns import MatchStatus, PatternMatch
from embedl_deploy.patterns.causes import Cause, Why
from embedl_deploy.patterns.matches import PatternLike

_logger = logging.getLogger(__name__)


def fail(
    match: PatternMatch,
    method: str,
    error: BaseException,
    reason: str,
    *,
    consequence: str,
    strict: bool,
    told: bool = False,
) -> PatternMatch:
    """Record that a pattern failed, and tell it.

    Args:
        match: Where; it is marked as failed.
        method: The pattern's method that failed.
        error: What was raised.
        reason: What to say of it in reports.
        consequence: What becomes of the place.
        strict: Raise instead of going on.
        told: Whether it was logged before.

    Returns:
        The match.

    Raises:
        PatternError: ``strict`` is set.
    """
    match.status, match.apply, match.cause = MatchStatus.FAILED, False, Cause(Why.FAILED, detail=reason)
    shipped = f" (from {match.pattern.origin})" if match.pattern.origin else ""
    what = reason.rstrip(".")
    place = f"at {match.node_name!r}" if match.node_names else "everywhere"
    if strict:
        nodes = f" (nodes {', '.join(match.node_names)})" if len(match.node_names) > 1 else ""
        raise PatternError(
            f"Pattern {match.pattern_name!r}{shipped} failed {place}{nodes}: {what}. Repair the pattern, leave it "
            "out or switch this match off, or use strict=False to go on without it."
        ) from error
    if told:
        return match
    _logger.warning(
        "Pattern %r%s failed %s in %s: %s. %s",
        match.pattern_name,
        shipped,
        place,
        _where(match.pattern, method, error),
        what,
        consequence,
    )
    return match


def _where(pattern: PatternLike, method: str, error: BaseException) -> str:
    """``replace (plugin.py:20)``: the method, and the innermost line of the pattern's own file that was run."""
    home = sys.modules.get(type(pattern).__module__)
    lines = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if home is not None and frame.filename == getattr(home, "__file__", None)
    ]
    return f"{method} ({lines[-1]})" if lines else method
