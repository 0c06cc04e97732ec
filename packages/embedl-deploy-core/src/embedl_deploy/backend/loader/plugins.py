"""A manager of plugins, and the error of one that is broken."""

import pluggy

import embedl_deploy.backend.contract.hookspecs as hookspecs
from embedl_deploy.backend.contract.hookspecs import PROJECT
from embedl_deploy.backend.loader.discovery import PluginSource
from embedl_deploy.errors import PluginError


def plugin_manager() -> pluggy.PluginManager:
    """A manager that knows the hooks, and no plugin yet."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def plugin_error(source: PluginSource, what: str) -> PluginError:
    """The error to raise for a plugin that is broken."""
    kind = "Extension" if source.is_extension else "Backend"
    message = (
        f"{kind} {source.name!r} (from {source.origin}) {what.rstrip('.')}. Repair or uninstall {source.distribution}; "
        "other backends are not affected."
    )
    return PluginError(message, plugin=source.name, distribution=source.origin)
