"""Where each thing that a backend brings comes from: its own distribution, or that of an extension."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from embedl_deploy.backend.contributions import plugin_error
from embedl_deploy.backend.discovery import PluginSource


@dataclass(frozen=True)
class Contribution:
    """One thing that a plugin brings to a backend.

    Attributes:
        kind: ``"conversion"``, ``"fusion"``, ``"policy"``, ``"rule"``, ``"compiler"`` or ``"device"``.
        name: Name of the pattern, policy, compiler or device; id of the rule.
        plugin: Name of the entry point: the backend's, or ``"<backend>.<extension>"``.
        origin: Distribution and version that ship it.
    """

    kind: str
    name: str
    plugin: str
    origin: str


#: By kind: the hook, and the name of one of the values that it gives. Policies are given by name.
_HOOKS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "conversion": ("embedl_deploy_conversions", lambda pattern: str(pattern.name)),
    "fusion": ("embedl_deploy_fusions", lambda pattern: str(pattern.name)),
    "policy": ("embedl_deploy_quantization_policies", str),
    "rule": ("embedl_deploy_check_rules", lambda rule: str(rule.id)),
    "compiler": ("embedl_deploy_compilers", lambda compiler: str(compiler.name)),
    "device": ("embedl_deploy_devices", lambda device: str(device.name)),
}


def contributions_of(manager: pluggy.PluginManager, sources: Mapping[str, PluginSource]) -> Iterator[Contribution]:
    """Everything that the plugins of a backend bring, kind by kind, in the order in which hooks are called.

    What an extension replaces, a policy or a rule of the same name, is listed for both.

    Args:
        manager: With the plugins of the backend, each of which has been checked.
        sources: Where they are from, by the names under which they are registered.

    Raises:
        PluginError: A hook fails.
    """
    for kind, (hook, name_of) in _HOOKS.items():
        caller = getattr(manager.hook, hook)
        for implementation in reversed(caller.get_hookimpls()):  # as pluggy calls them: the last registered first
            source = sources[implementation.plugin_name]
            others = [plugin for plugin in manager.get_plugins() if plugin is not implementation.plugin]
            try:
                names = [name_of(value) for values in _ask(manager, hook, others, source) for value in values]
            except (Exception, SystemExit) as error:  # a plugin's hook may raise anything
                raise plugin_error(source, f"fails in {hook}: {type(error).__name__}: {error}") from error
            yield from (Contribution(kind, name, source.name, source.origin) for name in names)


def culprit_of(
    manager: pluggy.PluginManager,
    sources: Mapping[str, PluginSource],
    hook: str,
    kind: type,
    **arguments: Any,
) -> PluginSource:
    """Whose implementation of a hook raises, or answers what it must not, when it is asked alone.

    Args:
        manager: With the plugins of the backend.
        sources: Where they are from, by the names under which they are registered; the backend's own first.
        hook: Name of the hook.
        kind: What it must answer, if not ``None``.
        **arguments: Those of the hook.

    Returns:
        The plugin, that of the backend if none can be told.
    """
    implementations = reversed(getattr(manager.hook, hook).get_hookimpls())
    # Wrappers last: alone they have nothing to wrap, and may fail at that.
    for implementation in sorted(implementations, key=lambda each: bool(each.wrapper or each.hookwrapper)):
        others = [plugin for plugin in manager.get_plugins() if plugin is not implementation.plugin]
        try:
            answer = manager.subset_hook_caller(hook, others)(**arguments)
        except (Exception, SystemExit):  # noqa: BLE001 - a plugin's hook may raise anything
            return sources[implementation.plugin_name]
        if answer is not None and not isinstance(answer, kind):
            return sources[implementation.plugin_name]
    return next(iter(sources.values()))


def _ask(manager: pluggy.PluginManager, hook: str, others: list[Any], source: PluginSource) -> list[Iterable[Any]]:
    answers: list[Iterable[Any]] = manager.subset_hook_caller(hook, others)(backend=source.backend)
    return answers
