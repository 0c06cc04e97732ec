"""The installed backends, and which of them is in use."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import RLock

from embedl_deploy.backend.discovery import PluginSource, installed_plugins
from embedl_deploy.backend.loading import Backend, LoadedPlugin, build_backend, load_plugin
from embedl_deploy.errors import BackendNotFoundError, PluginError

_logger = logging.getLogger(__name__)
_lock = RLock()
_plugins: dict[PluginSource, LoadedPlugin | PluginError] = {}
_backends: dict[str, Backend] = {}
_process_choice: str | None = None
_block_choice: ContextVar[Backend | None] = ContextVar("embedl_deploy_backend", default=None)


@dataclass(frozen=True)
class BackendStatus:
    """One installed plugin and whether it can be used.

    Attributes:
        name: Entry-point name.
        origin: Distribution and version that ship it.
        error: What is wrong with it, or ``None``.
    """

    name: str
    origin: str
    error: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it loaded."""
        return self.error is None


def discover_backends() -> dict[str, str]:
    """Names of the installed backends and the distributions that ship them, without importing any."""
    found: dict[str, list[str]] = {}
    for source in installed_plugins():
        if not source.is_extension:
            found.setdefault(source.name, []).append(source.origin)
    return {name: ", ".join(origins) for name, origins in found.items()}


def list_backends() -> dict[str, BackendStatus]:
    """Load every installed plugin and say which of them work.

    Backends come under their names, extensions under ``"<backend>.<extension>"``. A plugin that cannot be loaded
    is listed with its error and affects no other. Names taken twice are listed once, with both distributions.
    """
    statuses: dict[str, BackendStatus] = {}
    for source in installed_plugins():
        before = statuses.get(source.name)
        if before is not None and not source.is_extension:
            continue
        error = None
        try:
            _check_unique(source)
            _load(source)
        except PluginError as broken:
            error = str(broken)
        if before is None:
            statuses[source.name] = BackendStatus(source.name, source.origin, error)
        else:  # extensions of one name all take part: one line for them, no error lost
            errors = " ".join(text for text in (before.error, error) if text) or None
            statuses[source.name] = BackendStatus(source.name, f"{before.origin}, {source.origin}", errors)
    return statuses


def _load(source: PluginSource) -> LoadedPlugin:
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


def _check_unique(source: PluginSource) -> None:
    same = [other.origin for other in installed_plugins() if other.name == source.name]
    if len(same) > 1 and not source.is_extension:
        raise PluginError(
            f"Backend {source.name!r} is provided by {len(same)} distributions: {', '.join(same)}. "
            "A backend's name must be unique; uninstall all but one of them.",
            plugin=source.name,
            distribution=", ".join(same),
        )


def get_backend(name: str | None = None) -> Backend:
    """Load a backend by name, or the one that is chosen.

    Args:
        name: The backend's name. ``None`` takes the nearest choice: that of the enclosing :func:`use_backend` block,
            that of :func:`set_backend`, or the only backend that is installed.

    Raises:
        BackendNotFoundError: No such backend is installed, or there is no choice to take.
        PluginError: It is installed but broken.
    """
    if name is None:
        block = _block_choice.get()
        if block is not None:
            return block
        name = _process_choice if _process_choice is not None else _only_installed()
    if not isinstance(name, str):
        raise BackendNotFoundError(f"backend is {name!r}; expected the name of a backend. {_installed_names()}")
    with _lock:
        if name in _backends:
            return _backends[name]
        sources = installed_plugins()
        main = next((source for source in sources if source.name == name and not source.is_extension), None)
        if main is None:
            raise BackendNotFoundError(f"No backend {name!r} is installed. {_installed_names()}")
        _check_unique(main)
        loaded = _load(main)
        extensions = []
        for source in sources:
            if source.is_extension and source.backend == name:
                try:
                    extensions.append(_load(source))
                except PluginError as error:  # the backend works without it, and list_backends names it
                    _logger.warning("%s", error)
        _backends[name] = build_backend(loaded, extensions)
        return _backends[name]


def _installed_names() -> str:
    names = discover_backends()
    if not names:
        return "No backend is installed at all: pip install embedl-deploy-<target>, with the name of your target."
    listed = ", ".join(f"{name} ({origin})" for name, origin in names.items())
    return f"Installed: {listed}."


def _only_installed() -> str:
    names = list(discover_backends())
    if len(names) == 1:
        return names[0]
    if not names:
        raise BackendNotFoundError(f"Neither patterns nor a backend was given. {_installed_names()}")
    raise BackendNotFoundError(
        f"Neither patterns nor a backend was given, and {len(names)} are installed. {_installed_names()} "
        f"Choose one: backend={names[0]!r}, use_backend({names[0]!r}) or set_backend({names[0]!r})."
    )


def set_backend(name: str | None) -> None:
    """Choose a backend for the whole process; ``None`` takes the choice back.

    Raises:
        BackendNotFoundError: No such backend is installed.
        PluginError: It is installed but broken.
    """
    global _process_choice
    if name is not None:
        get_backend(name)
    _process_choice = name


@contextmanager
def use_backend(name: str) -> Iterator[Backend]:
    """Choose a backend for a ``with`` block, in the current thread or task only.

    Raises:
        BackendNotFoundError: No such backend is installed.
        PluginError: It is installed but broken.
    """
    token = _block_choice.set(get_backend(name))
    try:
        yield get_backend()
    finally:
        _block_choice.reset(token)


def reset_backends() -> None:
    """Forget the choice and everything loaded, so that plugins installed meanwhile are found."""
    global _process_choice
    with _lock:
        _process_choice = None
        _block_choice.set(None)
        _plugins.clear()
        _backends.clear()
