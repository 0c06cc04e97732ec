"""Checks of a backend as a whole: what it says of itself, its hooks, its policies."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from embedl_deploy.backend import PointKind, QuantPoint, hookspecs
from embedl_deploy.pipeline import transform
from embedl_deploy.quantize.points import patterns_by_node, points_of
from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply, trying
from embedl_deploy.testing.networks import NETWORKS
from embedl_deploy.testing.subjects import BackendSubject

#: Number formats that a policy is asked about.
_PRECISIONS = ("int8", "float8_e4m3fn")
#: Hooks that are called when a backend is loaded, with its name: those that give lists.
_HOOKS = tuple(
    name
    for name, hook in vars(hookspecs).items()
    if name.startswith("embedl_deploy_") and not hook.embedl_deploy_spec["firstresult"]
)


def describes_itself(subject: BackendSubject) -> None:
    """It has a title for people, and says what it is."""
    info = subject.backend.info
    for name in ("title", "description"):
        if not getattr(info, name).strip():
            raise ConformanceFailure(f"the {name} of its BackendInfo is empty", "a name or a sentence for people")


def hooks_give_the_same(subject: BackendSubject) -> None:
    """Every hook that is called when the backend is loaded gives the same each time, in the same order."""
    manager = subject.backend._manager
    for name in _HOOKS:
        if not hasattr(manager.hook, name):
            raise DoesNotApply("the backend was not loaded from a plugin")
        hook = getattr(manager.hook, name)
        once, again = (_words(hook(backend=subject.backend.name)) for _ in range(2))
        if once != again:
            raise ConformanceFailure(f"{name} gives {once}, then {again}", "the same at every call")


def _words(results: list[Any]) -> list[str]:
    """What a hook gave, by the names of it."""
    values = [value for result in results for value in result]
    return [value if isinstance(value, str) else str(_name(value)) for value in values]


def _name(value: Any) -> str:
    return next((str(name) for key in ("name", "id", "__name__") if (name := getattr(value, key, None))), repr(value))


def names_are_unique(subject: BackendSubject) -> None:
    """No two patterns, rules, compilers or devices have the same name: plans, reports and users choose by name."""
    backend = subject.backend
    kinds = {
        "patterns": [pattern.name for pattern in backend.patterns],
        "rules": [rule.id for rule in backend.check_rules],
        "compilers": [compiler.name for compiler in backend.compilers],
        "devices": [device.name for device in backend.devices],
    }
    for kind, names in kinds.items():
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ConformanceFailure(f"several {kind} are called {', '.join(map(repr, twice))}", "a name for each")


def policies_answer(subject: BackendSubject) -> None:
    """Each policy answers at every kind of point, in INT8 and FP8, with a reason or ``None``."""
    policies = subject.backend.policies
    if not policies:
        raise DoesNotApply("the backend has no quantization policies")
    points = list(_points(subject))
    if not points:
        raise DoesNotApply("no pattern with points for quantizers matches in the networks of the kit")
    for name, policy in policies.items():
        for where, point in points:
            asked = (
                f"policy {name!r}, asked about {point} of kind {point.kind.name} in {point.precision}, in the {where}"
            )
            with trying(asked):
                answer = policy(point)
                if answer is not None and not (isinstance(answer, str) and answer.strip()):
                    raise ConformanceFailure(f"the answer {answer!r}", "a reason, or None")


def _points(subject: BackendSubject) -> Iterator[tuple[str, QuantPoint]]:
    """Points of the networks, each as every kind and in every format."""
    for name, make in NETWORKS.items():
        example = make()
        result = transform(example.model, example.args, backend=subject.backend)
        for point in points_of(result.model, patterns_by_node(result.matches)):
            for kind in PointKind:
                for precision in _PRECISIONS:
                    yield name, replace(point, kind=kind, precision=precision)
