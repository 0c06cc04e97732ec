"""Calls the plugins of a backend in order, and names the one whose answer is wrong."""

from collections.abc import Mapping
from typing import Any

import pluggy

from embedl_deploy.backend.loader.discovery import PluginSource
from embedl_deploy.errors import PLUGIN_FAILURES


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
            answer = ask_alone(manager, implementation.plugin_name, hook, **arguments)
        except PLUGIN_FAILURES:  # a plugin's hook may raise anything
            return sources[implementation.plugin_name]
        if answer is not None and not isinstance(answer, kind):
            return sources[implementation.plugin_name]
    return next(iter(sources.values()))


def ask_alone(manager: pluggy.PluginManager, plugin_name: str, hook: str, **arguments: Any) -> Any:
    """What one of the plugins answers."""
    others = [plugin for name, plugin in manager.list_name_plugin() if name != plugin_name]
    return manager.subset_hook_caller(hook, others)(**arguments)
