"""Which plugins are installed, read from package metadata without importing any of them."""

from dataclasses import dataclass
from importlib import metadata

ENTRY_POINT_GROUP = "embedl_deploy.backends"
CORE_DISTRIBUTION = "embedl-deploy-core"


@dataclass(frozen=True)
class PluginSource:
    """An installed plugin, not yet loaded.

    Attributes:
        name: Entry-point name: a backend's name, or ``"<backend>.<extension>"``.
        entry_point: Where its code is.
        distribution: Name of the distribution that ships it.
        version: Version of that distribution.
        requires: The distribution's requirements.
    """

    name: str
    entry_point: metadata.EntryPoint
    distribution: str
    version: str
    requires: tuple[str, ...] = ()

    @property
    def backend(self) -> str:
        """Name of the backend that it is, or extends."""
        return self.name.partition(".")[0]

    @property
    def is_extension(self) -> bool:
        """Whether it extends a backend instead of being one."""
        return "." in self.name

    @property
    def origin(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}"

    def core_mismatch(self) -> str | None:
        """Why this plugin does not go with the installed core, or ``None`` if it does."""
        from packaging.requirements import InvalidRequirement, Requirement  # here: a third of the import of core
        from packaging.utils import canonicalize_name

        installed = metadata.version(CORE_DISTRIBUTION)
        for line in self.requires:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue  # not ours to judge: the installer has accepted it
            if canonicalize_name(requirement.name) != CORE_DISTRIBUTION:
                continue
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            if not requirement.specifier.contains(installed, prereleases=True):
                return f"it needs {requirement}, but {CORE_DISTRIBUTION} {installed} is installed"
        return None


def _identity(dist: metadata.Distribution) -> tuple[str, str]:
    """Name and version; an installation that was half removed has no METADATA to read them from."""
    fields = dist.metadata
    name = fields["Name"] if fields is not None and "Name" in fields else None
    version = fields["Version"] if fields is not None and "Version" in fields else None
    return str(name or getattr(dist, "_path", "an unknown distribution")), str(version or "?")


def installed_plugins() -> list[PluginSource]:
    """All installed plugins, sorted by name and distribution."""
    sources = []
    for entry_point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        dist = entry_point.dist
        if dist is None:
            sources.append(PluginSource(entry_point.name, entry_point, "an unknown distribution", "?"))
        else:
            name, version = _identity(dist)
            sources.append(PluginSource(entry_point.name, entry_point, name, version, tuple(dist.requires or ())))
    return sorted(sources, key=lambda source: (source.name, source.distribution))
