"""The status of installed plugins: usable, or broken and why."""

from dataclasses import dataclass

from embedl_deploy.backend.loader import discovery
from embedl_deploy.backend.loader.discovery import PluginSource
from embedl_deploy.backend.loader.kept import joined, load_once
from embedl_deploy.backend.loader.names import source_of, sources_of
from embedl_deploy.errors import BackendError, PluginError
from embedl_deploy.validation.checked import checked


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


def list_backends() -> dict[str, BackendStatus]:
    """Load every installed plugin and say which of them work.

    Backends come under their names, extensions under ``"<backend>.<extension>"``, or ``"<backend>.<extension>
    (<distribution> <version>)"`` from the second of one name on. A plugin that cannot be loaded is listed with its
    error and affects no other. A backend's name that is taken twice is listed once, with both distributions.
    """
    statuses: dict[str, BackendStatus] = {}
    for name in dict.fromkeys(source.name for source in discovery.installed_plugins() if not source.is_extension):
        statuses[name] = _status_of_backend(name)
    for source in discovery.installed_plugins():
        if source.is_extension:
            key = source.name if source.name not in statuses else f"{source.name} ({source.origin})"
            statuses[key] = _status_of_extension(source, statuses.get(source.backend))
    return dict(sorted(statuses.items()))


def _status_of_backend(name: str) -> BackendStatus:
    origins = [source.origin for source in sources_of(name)]
    try:
        source = source_of(name)
        load_once(source)
    except BackendError as broken:
        return BackendStatus(name, ", ".join(origins), str(broken))
    others = [origin for origin in origins if origin != source.origin]
    conflicts = [f"{', '.join(others)} provides {name!r}, too, and is not used: {source.origin} was chosen."]
    return BackendStatus(name, source.origin, None, (*(conflicts if others else ()), *joined(name).conflicts))


def _status_of_extension(source: PluginSource, backend: BackendStatus | None) -> BackendStatus:
    try:
        load_once(source)
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
