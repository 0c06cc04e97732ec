"""The names of installed backends, read without importing them, and the message for an unknown name."""

import difflib

from embedl_deploy.backend.loader import discovery
from embedl_deploy.backend.loader.discovery import PluginSource
from embedl_deploy.backend.loader.rivals import choose_from


def sources_of(name: str) -> list[PluginSource]:
    """The distributions that have a backend of a name."""
    return [source for source in discovery.installed_plugins() if source.name == name and not source.is_extension]


def source_of(name: str) -> PluginSource:
    """The one that is used.

    Raises:
        BackendNotFoundError: The distribution that was chosen has no such backend.
        PluginError: There are several, and none was chosen.
    """
    return choose_from(name, sources_of(name))


def discover_backends() -> dict[str, str]:
    """Names of the installed backends and the distributions that ship them, without importing any."""
    found: dict[str, list[str]] = {}
    for source in discovery.installed_plugins():
        if not source.is_extension:
            found.setdefault(source.name, []).append(source.origin)
    return {name: ", ".join(origins) for name, origins in found.items()}


def meant(name: str) -> str:
    """A suggestion of an installed backend with a similar name, or one that ``name`` abbreviates; may be empty."""
    names = discover_backends()
    near = difflib.get_close_matches(name.lower(), names, n=1)
    near = near or [other for other in names if len(name) > 1 and _abbreviates(name.lower(), other)]
    return f"Did you mean {near[0]!r}? " if near else ""


def _abbreviates(short: str, name: str) -> bool:
    """Whether ``short`` is the first letter of ``name`` and some of its others, in order, as ``ac`` of ``acme``."""
    letters = iter(name)
    return name[:1] == short[:1] and all(letter in letters for letter in short)


def installed_names() -> str:
    """The installed backends with their distributions, as a sentence."""
    names = discover_backends()
    if not names:
        return "No backend is installed at all: pip install embedl-deploy-<target>, with the name of your target."
    listed = ", ".join(f"{name} ({origin})" for name, origin in names.items())
    return f"Installed: {listed}."
