"""Checks of a backend as a whole: what it says of itself, its hooks, its policies."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from embedl_deploy.backend import PointKind, QuantPoint
from embedl_deploy.errors import PluginError
from embedl_deploy.numerics import Precision
from embedl_deploy.pipeline import transform
from embedl_deploy.quantize.placing.points import patterns_by_node, points_of
from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply, trying
from embedl_deploy.testing.networks import NETWORKS
from embedl_deploy.testing.subjects import BackendSubject

#: Number formats that a policy is asked about.
_PRECISIONS = [precision.value for precision in Precision if precision.format.for_activations]
#: Versions of the operator set that files are written for.
_OPSETS = (18, 21)


def describes_itself(subject: BackendSubject) -> None:
    """It has a title for people, and says what it is."""
    info = subject.backend.info
    for name in ("title", "description"):
        if not getattr(info, name).strip():
            raise ConformanceFailure(f"the {name} of its BackendInfo is empty", "a name or a sentence for people")


def translations_are_given(subject: BackendSubject) -> None:
    """The hook for operators of the backend's own gives functions that take what the operators take."""
    for opset in _OPSETS:
        try:
            found = subject.backend.onnx_translations(opset)
        except PluginError as error:
            raise ConformanceFailure(str(error), "a mapping from overloads to functions of onnxscript") from error
        if not found:
            raise DoesNotApply("the backend has no operators of its own")
        for operator in found:
            schema = operator._schema  # type: ignore[attr-defined]  # an overload, as has been checked
            missing = _missing_arguments(found[operator], [argument.name for argument in schema.arguments])
            if missing is not None:
                raise ConformanceFailure(
                    f"the translation of {operator} takes {missing}", f"a function that takes what {schema} takes"
                )


def _missing_arguments(function: Callable[..., Any], names: list[str]) -> str | None:
    """The parameters of a function that cannot be called with as many arguments; ``None`` if it can."""
    try:
        signature = inspect.signature(function)
        signature.bind(*names)
    except TypeError:
        return str(signature)
    except ValueError:
        return None  # it does not tell
    return None


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
    """Each policy answers at every kind of point, in every format of activations, with a reason or ``None``."""
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
        result = transform(example.model, example.args, backend=subject.whole or subject.backend)
        for point in points_of(result.model, patterns_by_node(result.matches)):
            for kind in PointKind:
                for precision in _PRECISIONS:
                    yield name, replace(point, kind=kind, precision=precision)
