"""A cache of loaded plugins and joined backends, one of each per process."""

import logging
from threading import RLock

from embedl_deploy.backend.loader import discovery
from embedl_deploy.backend.loader.backend import Backend
from embedl_deploy.backend.loader.discovery import PluginSource
from embedl_deploy.backend.loader.joining import build_backend
from embedl_deploy.backend.loader.loading import LoadedPlugin, load_plugin
from embedl_deploy.backend.loader.names import installed_names, meant, source_of, sources_of
from embedl_deploy.errors import BackendNotFoundError, PluginError

_logger = logging.getLogger(__name__)
_lock = RLock()
_plugins: dict[PluginSource, LoadedPlugin | PluginError] = {}
_backends: dict[str, Backend] = {}
_untold: dict[str, list[str]] = {}  # what is wrong with extensions, until the backend is asked for


def load_once(source: PluginSource) -> LoadedPlugin:
    """A plugin, loaded when it is first asked for.

    Raises:
        PluginError: It is broken; also when it is asked for again.
    """
    with _lock:
        if source not in _plugins:
            try:
                _plugins[source] = load_plugin(source)
            except PluginError as error:
                _plugins[source] = error
        loaded = _plugins[source]
    if isinstance(loaded, PluginError):
        # A new one each time: an exception that is raised again keeps every traceback it ever had.
        raise PluginError(str(loaded), plugin=loaded.plugin, distribution=loaded.distribution) from loaded.__cause__
    return loaded


def joined(name: str) -> Backend:
    """The backend of a name with its extensions; joined once, and kept."""
    with _lock:
        if name not in _backends:
            if not sources_of(name):
                raise BackendNotFoundError(f"No backend {name!r} is installed. {meant(name)}{installed_names()}")
            main = load_once(source_of(name))
            extensions, broken = [], []
            for source in discovery.installed_plugins():
                if source.is_extension and source.backend == name:
                    try:
                        extensions.append(load_once(source))
                    except PluginError as error:
                        broken.append(str(error))
            backend = _backends[name] = build_backend(main, extensions)
            _untold[name] = [*broken, *(f"Backend {name!r}: {conflict}" for conflict in backend.conflicts)]
        return _backends[name]


def joined_and_told(name: str) -> Backend:
    """The backend of a name; what is wrong with its extensions is logged when it is first asked for."""
    with _lock:
        backend = joined(name)
        for trouble in _untold.pop(name, ()):  # the backend works all the same, and list_backends names it
            _logger.warning("%s", trouble)
    return backend


def forget_backend(name: str) -> None:
    """Join the backend of a name again when it is next asked for."""
    with _lock:
        _backends.pop(name, None)


def forget_all() -> None:
    """Load everything again when it is next asked for."""
    with _lock:
        _plugins.clear()
        _backends.clear()
        _untold.clear()
