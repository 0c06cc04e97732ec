"""The origin of each contribution to a backend: its own distribution, or that of an extension."""

from dataclasses import dataclass

from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True)
class Contribution:
    """One contribution of a plugin to a backend.

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
