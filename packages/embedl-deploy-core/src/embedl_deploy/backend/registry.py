"""The installed backends, and which of them is in use."""

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import RLock

from embedl_deploy.backend.backend import Backend
from embedl_deploy.backend.discovery import PluginSource, installed_plugins
from embedl_deploy.backend.joining import build_backend
from embedl_deploy.backend.loading import LoadedPlugin, load_plugin
from embedl_deploy.backend.rivals import choose_distribution, choose_from, forget_distributions
from embedl_deploy.errors import BackendError, BackendNotFoundError, PluginError
from embedl_deploy.validation.checked import checked

_logger = logging.getLogger(__name__)
_lock = RLock()
_plugins: dict[PluginSource, LoadedPlugin | PluginError] = {}
_backends: dict[str, Backend] = {}
_untold: dict[str, list[str]] = {}  # what is wrong with extensions, until the backend is asked for
_process_choice: str | None = None
_block_choice: ContextVar[Backend | None] = ContextVar("embedl_deploy_backend", default=None)


@checked
@dataclass(frozen=True)
class BackendStatus:
    """One installed plugin and whether it can be used.

    Attributes:
        name: Entry-point name.
        origin: Distribution and version that ship it.
        error: What is wrong with it, or ``None``.
        conflicts: Where plugins of this backend get in each other's way, and what is done about it, in words.
    """

    name: str
    origin: str
    error: str | None = None
    conflicts: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether it loaded."""
        return self.error is None


def _sources_of(name: str) -> list[PluginSource]:
    """The distributions that have a backend of a name."""
    return [source for source in installed_plugins() if source.name == name and not source.is_extension]


def _source_of(name: str) -> PluginSource:
    """The one that is used.

    Raises:
        BackendNotFoundError: The distribution that was chosen has no such backend.
        PluginError: There are several, and none was chosen.
    """
    return choose_from(name, _sources_of(name))


def discover_backends() -> dict[str, str]:
    """Names of the installed backends and the distributions that ship them, without importing any."""
    found: dict[str, list[str]] = {}
    for source in installed_plugins():
        if not source.is_extension:
            found.setdefault(source.name, []).append(source.origin)
    return {name: ", ".join(origins) for name, origins in found.items()}


def list_backends() -> dict[str, BackendStatus]:
    """Load every installed plugin and say which of them work.

    Backends come under their names, extensions under ``"<backend>.<extension>"``, or ``"<backend>.<extension>
    (<distribution> <version>)"`` from the second of one name on. A plugin that cannot be loaded is listed with its
    error and affects no other. A backend's name that is taken twice is listed once, with both distributions.
    """
    statuses: dict[str, BackendStatus] = {}
    for name in dict.fromkeys(source.name for source in installed_plugins() if not source.is_extension):
        statuses[name] = _status_of_backend(name)
    for source in installed_plugins():
        if source.is_extension:
            key = source.name if source.name not in statuses else f"{source.name} ({source.origin})"
            statuses[key] = _status_of_extension(source, statuses.get(source.backend))
    return dict(sorted(statuses.items()))


def _status_of_backend(name: str) -> BackendStatus:
    origins = [source.origin for source in _sources_of(name)]
    try:
        source = _source_of(name)
        _load(source)
    except BackendError as broken:
        return BackendStatus(name, ", ".join(origins), str(broken))
    others = [origin for origin in origins if origin != source.origin]
    conflicts = [f"{', '.join(others)} provides {name!r}, too, and is not used: {source.origin} was chosen."]
    return BackendStatus(name, source.origin, None, (*(conflicts if others else ()), *_join(name).conflicts))


def _status_of_extension(source: PluginSource, backend: BackendStatus | None) -> BackendStatus:
    try:
        _load(source)
    except PluginError as broken:
        return BackendStatus(source.name, source.origin, str(broken))
    if backend is not None and backend.usable:
        return BackendStatus(source.name, source.origin)
    state = "not installed" if backend is None else "broken"
    do = f"Install {source.backend!r}" if backend is None else f"See the error of {source.backend!r}"
    error = (
        f"Extension {source.name!r} (from {source.origin}) extends the backend {source.backend!r}, which is {state}. "
        f"{do}, or uninstall {source.distribution}."
    )
    return BackendStatus(source.name, source.origin, error)


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


@checked(error=BackendNotFoundError)
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
    with _lock:
        backend = _join(name)
        for trouble in _untold.pop(name, ()):  # the backend works all the same, and list_backends names it
            _logger.warning("%s", trouble)
    return backend


def _join(name: str) -> Backend:
    """The backend of a name with its extensions; joined once, and kept."""
    with _lock:
        if name not in _backends:
            if not _sources_of(name):
                raise BackendNotFoundError(f"No backend {name!r} is installed. {_meant(name)}{_installed_names()}")
            main = _load(_source_of(name))
            extensions, broken = [], []
            for source in installed_plugins():
                if source.is_extension and source.backend == name:
                    try:
                        extensions.append(_load(source))
                    except PluginError as error:
                        broken.append(str(error))
            backend = _backends[name] = build_backend(main, extensions)
            _untold[name] = [*broken, *(f"Backend {name!r}: {conflict}" for conflict in backend.conflicts)]
        return _backends[name]


def _meant(name: str) -> str:
    """A suggestion of an installed backend with a similar name, or one that ``name`` abbreviates; may be empty."""
    names = discover_backends()
    near = difflib.get_close_matches(name.lower(), names, n=1)
    near = near or [other for other in names if len(name) > 1 and _abbreviates(name.lower(), other)]
    return f"Did you mean {near[0]!r}? " if near else ""


def _abbreviates(short: str, name: str) -> bool:
    """Whether ``short`` is the first letter of ``name`` and some of its others, in order: ``trt``, ``tensorrt``."""
    letters = iter(name)
    return name[:1] == short[:1] and all(letter in letters for letter in short)


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


@checked(error=BackendNotFoundError)
def set_backend(name: str | None, *, distribution: str | None = None) -> None:
    """Choose a backend for the whole process; ``None`` takes the choice back.

    Args:
        name: The backend's name.
        distribution: Whose backend of that name, where several distributions have one; the environment variable
            ``EMBEDL_DEPLOY_DISTRIBUTION=name=distribution`` says the same from outside.

    Raises:
        BackendNotFoundError: No such backend is installed.
        PluginError: It is installed but broken.
    """
    global _process_choice
    if name is not None:
        with _lock:
            if distribution is None:
                get_backend(name)
            else:
                _backends.pop(name, None)
                before = choose_distribution(name, distribution)
                try:
                    get_backend(name)
                except BackendError:
                    choose_distribution(name, before)
                    raise
    _process_choice = name


@checked(error=BackendNotFoundError)
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
        _untold.clear()
        forget_distributions()
