"""The last comparison of a search for the least time: the fastest candidates take turns with one another.

Of many times that were taken one after the other, the least is also the luckiest.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from embedl_deploy.tuning.accuracy import key_of
from embedl_deploy.tuning.search import Best, Search

#: How many, beside the fastest start and the best so far.
_FASTEST = 3


def run_off(search: Search) -> None:
    """Time the fastest candidates together, and choose the best among them.

    Args:
        search: Of the least time; its best changes.

    Raises:
        CompileError: The compiler refuses what it took before, or an engine cannot be run here.
    """
    last = _last(search)
    if len(last) < 2:
        return
    builds = last[0].subject.task.builds
    seconds = builds.timed_together(
        [each.subject.key(each.points) for each in last],
        [partial(each.subject.file, each.points) for each in last],
    )
    timed = [_retimed(search, each, own) for each, own in zip(last, seconds, strict=True)]
    search.best = search.best_of_times(timed)


def _last(search: Search) -> Sequence[Best]:
    """The fastest so far, the fastest start, and the best."""
    ranked = sorted(search.candidates, key=lambda each: each.trial.objective)
    chosen = [*ranked[:_FASTEST], *[each for each in ranked if each.trial.start][:1], search.require_best()]
    return [each for number, each in enumerate(chosen) if each not in chosen[:number]]


def _retimed(search: Search, each: Best, seconds: float) -> Best:
    """A candidate by its new time, which takes the place of the old one everywhere."""
    outcome = f"{each.trial.outcome}; {seconds:.6g} in turns with the other fastest"
    trial = replace(each.trial, objective=seconds, outcome=outcome)
    search.trials[search.trials.index(each.trial)] = trial
    each.subject.values[key_of(each.points)] = (seconds, trial.accuracy)
    search.last.add(each.subject.key(each.points))
    return replace(each, trial=trial)
