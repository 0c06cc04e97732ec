"""Writes a new backend's files from the templates next to this module.

A template is a file whose name ends in ``.tmpl``; ``$name`` and the like stand for the attributes of
:class:`BackendNames`, and ``__package__`` in its path for the package's name.
"""

import os
import tempfile
from pathlib import Path, PurePosixPath
from string import Template

from embedl_deploy.errors import InputError
from embedl_deploy.scaffold.names import BackendNames, names_of
from embedl_deploy.validation.checked import checked

_TEMPLATES = Path(__file__).parent / "template"
_SUFFIX = ".tmpl"


@checked
def new_backend(name: str, directory: str | os.PathLike[str] = ".", *, title: str | None = None) -> Path:
    """Generate a complete backend: a distribution that installs, is discovered, and passes its own tests.

    It fuses convolutions and matrix products with what follows them, keeps the first convolution in float, has a rule
    for ONNX files, and tests for all of it.

    Args:
        name: The backend's, such as ``"acme"`` or ``"acme-npu"``.
        directory: Where the folder ``embedl-deploy-<name>`` is made; made itself if it is not there.
        title: Name of the hardware, for people; by default made from ``name``.

    Returns:
        The folder. It is written whole or not at all.

    Raises:
        InputError: The name is invalid or taken, the title does not fit, or the folder is there and not empty.
        OSError: The files cannot be written.
    """
    names = names_of(name, title)
    folder = Path(directory) / names.distribution
    _check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        draft = Path(temporary) / folder.name
        for path, text in rendered_files(names).items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_text(text, encoding="utf-8")
        if folder.is_dir():
            folder.rmdir()  # empty; not every system renames over it
        os.replace(draft, folder)
    return folder


def _check_free(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        kind = "a folder that is not empty" if folder.is_dir() else "a file"
        raise InputError(
            f"{str(folder)!r} is {kind}, and nothing in it is overwritten; expected no such folder, or an empty one. "
            "Move it away, or choose another directory."
        )


def rendered_files(names: BackendNames) -> dict[PurePosixPath, str]:
    """The text of every file of a new backend, by its path in the backend's folder, in order."""
    files = {}
    for template in sorted(_TEMPLATES.rglob(f"*{_SUFFIX}")):
        path = template.relative_to(_TEMPLATES).as_posix().removesuffix(_SUFFIX)
        text = Template(template.read_text(encoding="utf-8")).substitute(names.placeholders())
        files[PurePosixPath(path.replace("__package__", names.package))] = text
    return files
