"""The names of everything in a new backend, derived from the backend's name."""

import keyword
import re
from dataclasses import dataclass
from importlib import metadata

from packaging.utils import canonicalize_name
from packaging.version import Version

from embedl_deploy.backend import discover_backends
from embedl_deploy.errors import InputError

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
#: Beyond these, lines of the written files grow longer than the 120 characters that its linter allows.
_LONGEST_NAME, _LONGEST_TITLE = 20, 40


@dataclass(frozen=True)
class BackendNames:
    """The names in a new backend; attributes are the placeholders of the templates.

    Attributes:
        name: The backend's, under which it is chosen: ``"acme-npu"``.
        title: Name of the hardware, for people.
    """

    name: str
    title: str

    @property
    def distribution(self) -> str:
        """What is installed: ``"embedl-deploy-acme-npu"``."""
        return canonicalize_name(f"embedl-deploy-{self.name}")

    @property
    def package(self) -> str:
        """What is imported: ``"embedl_deploy_acme_npu"``."""
        return self.distribution.replace("-", "_")

    @property
    def prefix(self) -> str:
        """Start of class names: ``"AcmeNpu"``."""
        return "".join(word.capitalize() for word in re.split("[-_]", self.name))

    @property
    def constant(self) -> str:
        """Start of names of constants: ``"ACME_NPU"``."""
        return re.sub("[-_]", "_", self.name).upper()

    @property
    def rule(self) -> str:
        """Start of the ids of the checker's rules: ``"ACME-NPU"``."""
        return self.constant.replace("_", "-")

    @property
    def core_versions(self) -> str:
        """The versions of the core that the backend goes with: from this one to the next that may break it."""
        installed = Version(metadata.version("embedl-deploy-core"))
        following = f"0.{installed.minor + 1}" if installed.major == 0 else str(installed.major + 1)
        return f">={installed.public},<{following}"

    def placeholders(self) -> dict[str, str]:
        """What the templates' placeholders stand for."""
        names = ("name", "title", "distribution", "package", "prefix", "constant", "rule", "core_versions")
        return {name: getattr(self, name) for name in names}


def names_of(name: str, title: str | None = None) -> BackendNames:
    """The names in a new backend.

    Args:
        name: The backend's.
        title: Name of the hardware, for people; by default made from ``name``.

    Raises:
        InputError: The name is invalid or taken, or the title would not fit into the files.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise InputError(
            f"{name!r} is not a valid backend name; expected at most {_LONGEST_NAME} lower-case letters and digits, in "
            "words joined by '-' or '_', the first a letter: 'acme' or 'acme-npu'."
        )
    if keyword.iskeyword(name):
        raise InputError(f"{name!r} is a keyword of Python; choose another name, such as '{name}-npu'.")
    names = BackendNames(name, " ".join(re.split("[-_]", name)).title() if title is None else title)
    _check_title(names.title)
    _check_not_taken(names)
    return names


def _check_title(title: str) -> None:
    if not title.strip() or not title.isprintable() or set(title) & set('"\\') or len(title) > _LONGEST_TITLE:
        raise InputError(
            f"title {title!r} cannot be written into the backend's files; expected one line of at most "
            f"{_LONGEST_TITLE} characters, without quotation marks and backslashes, such as 'Acme Edge NPU'."
        )


def _check_not_taken(names: BackendNames) -> None:
    wanted = canonicalize_name(names.name)
    for installed, origin in discover_backends().items():
        if canonicalize_name(installed) == wanted:
            raise InputError(
                f"The backend {names.name!r} is installed already, as {installed!r} from {origin}. "
                "Choose another name, or uninstall that distribution first."
            )
    try:
        version = metadata.version(names.distribution)
    except metadata.PackageNotFoundError:
        return
    raise InputError(
        f"The backend {names.name!r} would be the distribution {names.distribution}, which is installed already "
        f"(version {version}). Choose another name."
    )
