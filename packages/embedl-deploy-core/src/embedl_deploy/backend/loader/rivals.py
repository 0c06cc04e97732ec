"""Chooses between several distributions that provide a backend of the same name."""

import os
from collections.abc import Sequence

from embedl_deploy.backend.loader.discovery import PluginSource
from embedl_deploy.errors import BackendNotFoundError, PluginError

#: Environment variable: ``name=distribution``, several with commas between them.
VARIABLE = "EMBEDL_DEPLOY_DISTRIBUTION"

_choices: dict[str, str] = {}


def choose_distribution(name: str, distribution: str | None) -> str | None:
    """Say whose backend of a name is meant, for the whole process; ``None`` takes it back.

    Returns:
        What was said before.
    """
    before = _choices.pop(name, None)
    if distribution is not None:
        _choices[name] = distribution
    return before


def forget_distributions() -> None:
    """Take all choices back but those of the environment."""
    _choices.clear()


def chosen_distribution(name: str) -> str | None:
    """Whose backend of a name is meant; ``None`` if nobody has said.

    Raises:
        BackendNotFoundError: The environment variable cannot be read.
    """
    if name in _choices:
        return _choices[name]
    for entry in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(","))):
        backend, equals, distribution = (part.strip() for part in entry.partition("="))
        if not (backend and equals and distribution):
            raise BackendNotFoundError(
                f"{VARIABLE} holds {entry!r}; expected the name of a backend and a distribution, such as "
                f"{VARIABLE}={name}=embedl-deploy-{name}."
            )
        if backend == name:
            return distribution
    return None


def choose_from(name: str, sources: Sequence[PluginSource]) -> PluginSource:
    """The one that is used of several distributions with a backend of one name.

    Args:
        name: The backend's.
        sources: One or more.

    Raises:
        BackendNotFoundError: None of them is the distribution that was chosen.
        PluginError: There are several, and none was chosen.
    """
    origins = ", ".join(source.origin for source in sources)
    chosen = chosen_distribution(name)
    if chosen is not None:
        for source in sources:
            if _normal(source.distribution) == _normal(chosen):
                return source
        raise BackendNotFoundError(
            f"No distribution {chosen!r} with a backend {name!r} is installed; there is {origins}."
        )
    if len(sources) == 1:
        return sources[0]
    own = [source for source in sources if _normal(source.distribution) == _normal(f"embedl-deploy-{name}")]
    kept = own[0] if own else sources[0]
    others = [source.distribution for source in sources if source is not kept]
    guess = f"pip uninstall {' '.join(others)} leaves {kept.distribution}"
    raise PluginError(
        f"Backend {name!r} is provided by {len(sources)} distributions: {origins}. A backend's name must be unique; "
        f"uninstall all but one of them ({guess}), or say which one is meant: set_backend({name!r}, "
        f"distribution={kept.distribution!r}), or {VARIABLE}={name}={kept.distribution} in the environment.",
        plugin=name,
        distribution=origins,
    )


def _normal(distribution: str) -> str:
    return distribution.lower().replace("_", "-").replace(".", "-")
