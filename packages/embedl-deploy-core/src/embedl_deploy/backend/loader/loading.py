"""Loads each plugin separately, so that a broken one is named and the others still work."""

import inspect
from dataclasses import dataclass
from typing import Any

import pluggy

import embedl_deploy.backend.contract.hookspecs as hookspecs
from embedl_deploy.backend.contract.hookspecs import PROJECT
from embedl_deploy.backend.loader.discovery import PluginSource
from embedl_deploy.backend.loader.given import Given, given_by
from embedl_deploy.backend.loader.plugins import plugin_error, plugin_manager
from embedl_deploy.errors import PLUGIN_FAILURES, PluginError


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin that was imported, and what its hooks gave when they were called, once.

    Attributes:
        source: Where it is from.
        plugin: The module or object.
        given: What it brings.
    """

    source: PluginSource
    plugin: Any
    given: Given


def load_plugin(source: PluginSource) -> LoadedPlugin:
    """Import one plugin and check everything about it that can be checked without a model.

    Raises:
        PluginError: It cannot be imported, needs another core, or its hooks are wrong.
    """
    mismatch = source.core_mismatch()
    if mismatch is not None:
        raise plugin_error(source, f"does not fit the installed core: {mismatch}")
    try:
        plugin = source.entry_point.load()
    except PLUGIN_FAILURES as error:  # a plugin's import may raise anything
        raise plugin_error(source, f"cannot be imported: {type(error).__name__}: {error}") from error
    return read_plugin(source, plugin)


def read_plugin(source: PluginSource, plugin: Any) -> LoadedPlugin:
    """Check the hooks of a plugin that was imported, call those that give lists, and keep what they give.

    Raises:
        PluginError: Its hooks are wrong.
    """
    _check_names(source, plugin)
    manager = plugin_manager()
    try:
        manager.register(plugin, source.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise plugin_error(source, f"has a wrong hook: {' '.join(str(error).split())}") from error
    try:
        given = given_by(source, manager)
    except PluginError:
        raise
    except PLUGIN_FAILURES as error:  # what a plugin gives is objects with code of their own
        raise plugin_error(
            source, f"gives something that fails when it is looked at: {type(error).__name__}: {error}"
        ) from error
    return LoadedPlugin(source, plugin, given)


def _check_names(source: PluginSource, plugin: Any) -> None:
    """Look at every function that is named like a hook."""
    known = {name for name in vars(hookspecs) if name.startswith("embedl_deploy_")}
    for name in dir(plugin):
        if not name.startswith("embedl_deploy_"):
            continue
        try:
            function = getattr(plugin, name)
        except PLUGIN_FAILURES as error:  # a property of a plugin may raise anything
            raise plugin_error(source, f"cannot give its hook {name}: {type(error).__name__}: {error}") from error
        if not callable(function):
            continue
        marked = getattr(function, f"{PROJECT}_impl", None)
        if name not in known:
            if isinstance(marked, dict) and marked.get("optionalhook"):
                continue  # for another version of the core, which has that hook
            raise plugin_error(
                source,
                f"defines {name}, which is not a hook; the hooks are {', '.join(sorted(known))}. One that only other "
                "versions of the core have is marked @hookimpl(optionalhook=True)",
            )
        if source.is_extension and name == "embedl_deploy_describe":
            raise plugin_error(source, f"defines {name}; only the backend that it extends describes itself")
        if not inspect.isroutine(function):
            raise plugin_error(source, f"defines {name} as {function!r}; expected a function marked with @hookimpl")
        if marked is None:
            raise plugin_error(source, f"defines the hook {name} without marking it: put @hookimpl above it")
