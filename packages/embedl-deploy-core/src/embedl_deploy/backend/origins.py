"""Where each thing that a backend brings comes from: its own distribution, or that of an extension."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from embedl_deploy.backend.contributions import plugin_error
from embedl_deploy.backend.discovery import PluginSource
from embedl_deploy.errors import PLUGIN_FAILURES
from embedl_deploy.validation.checked import checked


@checked
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


#: What is done about two things of which one can be used.
NOT_USED = "that of {first} is used, and that of {second} is not"


def plugins_in_order(manager: pluggy.PluginManager, hook: str) -> list[str]:
    """Names of the plugins that implement a hook, in the order in which they are called."""
    implementations = reversed(getattr(manager.hook, hook).get_hookimpls())  # pluggy keeps the last called first
    return list(dict.fromkeys(each.plugin_name for each in implementations if not (each.wrapper or each.hookwrapper)))


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
        try:
            answer = _ask_alone(manager, implementation.plugin_name, hook, **arguments)
        except PLUGIN_FAILURES:  # a plugin's hook may raise anything
            return sources[implementation.plugin_name]
        if answer is not None and not isinstance(answer, kind):
            return sources[implementation.plugin_name]
    return next(iter(sources.values()))


def in_each_others_way(label: str, first: PluginSource, second: PluginSource, outcome: str) -> str:
    """What to tell where two plugins bring the same.

    Args:
        label: What it is.
        first: The plugin that comes first.
        second: The other.
        outcome: What is done about it, with ``{first}`` and ``{second}`` for their names.
    """
    titles = {"first": title_of(first), "second": title_of(second)}
    return (
        f"{titles['first']} and {titles['second']} both bring {label}: {outcome.format(**titles)}. Uninstall one of "
        "them, or have the one that shall win ask for it: @hookimpl(tryfirst=True)."
    )


def title_of(source: PluginSource) -> str:
    """The name of a plugin with the distribution that ships it."""
    return f"{source.name} ({source.origin})"


@dataclass(frozen=True)
class Translations:
    """What operators are in ONNX.

    Attributes:
        functions: By operator.
        conflicts: Where a translation of an extension is not used, because another comes first, in words.
    """

    functions: dict[Callable[..., Any], Callable[..., Any]]
    conflicts: tuple[str, ...]


def translations_from(manager: pluggy.PluginManager, sources: Mapping[str, PluginSource], opset: int) -> Translations:
    """What the operators of a backend's plugins are in ONNX; of two translations of one operator the first.

    Raises:
        PluginError: A plugin's hook fails, or gives something else than functions for operators.
    """
    from torch._ops import OpOverload

    hook = "embedl_deploy_onnx_translations"
    found: dict[Callable[..., Any], Callable[..., Any]] = {}
    owners: dict[Callable[..., Any], PluginSource] = {}
    conflicts: dict[str, None] = {}
    for name in plugins_in_order(manager, hook):
        source = sources[name]
        try:
            answers = _ask_alone(manager, name, hook, backend=source.backend, opset=opset)
        except PLUGIN_FAILURES as error:  # a plugin's hook may raise anything
            raise plugin_error(source, f"fails in {hook}: {type(error).__name__}: {error}") from error
        for answer in answers:
            if not isinstance(answer, Mapping):
                raise plugin_error(
                    source, f"returns {answer!r} from {hook}; expected a mapping from operators, or None"
                )
            for operator, function in answer.items():
                if not isinstance(operator, OpOverload):
                    raise plugin_error(
                        source,
                        f"returns {operator!r} as an operator from {hook}; expected an overload, such as "
                        "torch.ops.acme.clip.default",
                    )
                if not callable(function):
                    raise plugin_error(
                        source, f"returns {function!r} for {operator} from {hook}; expected a function of onnxscript"
                    )
                found.setdefault(operator, function)
                first = owners.setdefault(operator, source)
                if first is not source and source.is_extension:  # that one comes before its backend is meant
                    conflicts[in_each_others_way(f"a translation of {operator} to ONNX", first, source, NOT_USED)] = (
                        None
                    )
    return Translations(found, tuple(conflicts))


def _ask_alone(manager: pluggy.PluginManager, plugin_name: str, hook: str, **arguments: Any) -> Any:
    """What one of the plugins answers."""
    others = [plugin for name, plugin in manager.list_name_plugin() if name != plugin_name]
    return manager.subset_hook_caller(hook, others)(**arguments)
