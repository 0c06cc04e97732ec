"""The subjects of checks: a pattern with its examples, a whole backend, a network."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.backend import Backend, QuantPoint, QuantPolicy
from embedl_deploy.backend.loader.joined_policy import JoinedPolicy
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.patterns import Example, MatchStatus, Pattern, PatternMatch
from embedl_deploy.pipeline import transform
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.quantize import QuantConfig, default_config
from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply, package_of, trying


@dataclass(frozen=True)
class PatternSubject:
    """A pattern of a backend.

    Attributes:
        backend: The backend that registers it, with its extensions.
        pattern: The pattern.
        plugin: Name of the extension that is tested; empty if it is the backend.
    """

    backend: Backend
    pattern: Pattern
    plugin: str = ""

    @property
    def label(self) -> str:
        """What it is called in node ids and messages."""
        return self.pattern.name

    @property
    def packages(self) -> frozenset[str]:
        """Packages whose lines are the author's own."""
        return frozenset({package_of(type(self.pattern).__module__)})

    def rewrite(self, model: nn.Module | torch.export.ExportedProgram, example: Example) -> TransformationResult:
        """``model``, a form of the example's, with this one pattern applied; raises what the pattern raises."""
        return transform(model, example.args, patterns=[self.pattern], backend=self.backend, strict=True)


@dataclass(frozen=True)
class BackendSubject:
    """A backend as a whole, or what an extension adds to one.

    Attributes:
        backend: The backend, with its extensions; of an extension what it brings by itself.
        plugin: Name of the extension that is tested; empty if it is the backend.
        whole: Where an extension is tested, the backend with it.
    """

    backend: Backend
    plugin: str = ""
    whole: Backend | None = None

    @property
    def label(self) -> str:
        """What it is called in node ids and messages."""
        return "the extension" if self.plugin else "the backend"

    @property
    def packages(self) -> frozenset[str]:
        """Packages whose lines are the author's own."""
        owners = (*self.backend.patterns, *self.backend.check_rules, *self.backend.compilers)
        policies = self.backend.policies.values()
        parts = [part for policy in policies for part in getattr(policy, "parts", ())]
        functions = {getattr(function, "__module__", "") for function in (*policies, *(p.function for p in parts))}
        own = {type(owner).__module__ for owner in owners} | functions - {JoinedPolicy.__module__, ""}
        return frozenset(map(package_of, own))


@dataclass(frozen=True, eq=False)  # files are remembered by subject
class NetworkSubject:
    """A small network, for the whole pipeline of a backend.

    Attributes:
        backend: The backend, with its extensions.
        label: The network's name.
        make: Makes it, with inputs; the same at each call.
        plugin: Name of the extension that is tested; empty if it is the backend.
    """

    backend: Backend
    label: str
    make: Callable[[], Example]
    plugin: str = ""

    @property
    def packages(self) -> frozenset[str]:
        """Packages whose lines are the author's own."""
        return BackendSubject(self.backend).packages


def owner_of(subject: PatternSubject | BackendSubject | NetworkSubject) -> str:
    """Whose fault it is, for messages."""
    return f"Extension {subject.plugin!r}" if subject.plugin else f"Backend {subject.backend.name!r}"


def extension_alone(backend: Backend, plugin: str) -> Backend:
    """What one extension of a backend brings, without the backend's own and other extensions' things."""
    own = {(each.kind, each.name) for each in backend.contributions if each.plugin == plugin}
    patterns = backend.patterns_from(plugin)
    policies: dict[str, QuantPolicy] = {}
    for name, policy in backend.policies.items():
        if ("policy", name) in own:
            parts = policy.parts if isinstance(policy, JoinedPolicy) else ()
            policies[name] = next((part.function for part in parts if part.plugin == plugin), policy)
    return replace(
        backend,
        conversions=tuple(pattern for pattern in patterns if pattern.is_conversion),
        fusions=tuple(pattern for pattern in patterns if not pattern.is_conversion),
        policies=policies,
        check_rules=tuple(rule for rule in backend.check_rules if ("rule", rule.id) in own),
        compilers=tuple(compiler for compiler in backend.compilers if ("compiler", compiler.name) in own),
        devices=tuple(device for device in backend.devices if ("device", device.name) in own),
    )


def label_of(example: Example, number: int, kind: str = "example") -> str:
    """``example 1 (its note)``, counted from one."""
    return f"{kind} {number} ({example.note})" if example.note else f"{kind} {number}"


def declared(examples: Iterable[Any], kind: str) -> Iterator[tuple[str, Example]]:
    """Examples with what to call them.

    Raises:
        ConformanceFailure: One of them is not a :class:`Example`.
    """
    for number, example in enumerate(examples, start=1):
        if not isinstance(example, Example):
            raise ConformanceFailure(f"{kind} {number} is {example!r}", "an embedl_deploy.patterns.Example")
        yield label_of(example, number, kind), example


def for_each_example(look: Callable[[PatternSubject, Example], None]) -> Callable[[PatternSubject], None]:
    """A check of one example as a check of a pattern: every example is looked at.

    It applies if it applies to one of them.
    """

    @functools.wraps(look)
    def run(subject: PatternSubject) -> None:
        reasons: list[str] = []
        looked = False
        for where, example in declared(subject.pattern.examples(), "example"):
            try:
                with trying(where):
                    look(subject, example)
                looked = True
            except DoesNotApply as reason:
                reasons.append(str(reason))
        if not looked:
            raise DoesNotApply(reasons[0] if reasons else "it declares no examples")

    return run


def placed_by(result: TransformationResult) -> list[tuple[fx.Node, nn.Module, PatternMatch]]:
    """The module calls that applied matches put into the graph, with module and match."""
    nodes = {node.name: node for node in result.model.graph.nodes}
    found = []
    for match in result.report.with_status(MatchStatus.APPLIED):
        for name in match.replaced_by:
            node = nodes.get(name)
            module = get_module(node) if node is not None and node.op == "call_module" else None
            if node is not None and module is not None:
                found.append((node, module, match))
    return found


def no_objection(_point: QuantPoint) -> str | None:
    """The policy of a backend that has none."""
    return None


def config_of(subject: PatternSubject | NetworkSubject) -> QuantConfig:
    """The formats of the hardware, with the backend's default policy unless they come with one."""
    formats = default_config(subject.backend)
    if formats.policy is not None:
        return formats
    return replace(formats, policy=next(iter(subject.backend.policies.values()), no_objection))
