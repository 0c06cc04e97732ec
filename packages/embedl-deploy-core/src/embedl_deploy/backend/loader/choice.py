"""The backend in use: chosen for a block or for the process, or the only one installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock

from embedl_deploy.backend.loader.backend import Backend
from embedl_deploy.backend.loader.kept import forget_all, forget_backend, joined_and_told
from embedl_deploy.backend.loader.names import discover_backends, installed_names
from embedl_deploy.backend.loader.rivals import choose_distribution, forget_distributions
from embedl_deploy.errors import BackendError, BackendNotFoundError
from embedl_deploy.validation.checked import checked

_lock = RLock()
_process_choice: str | None = None
_block_choice: ContextVar[Backend | None] = ContextVar("embedl_deploy_backend", default=None)


@checked(error=BackendNotFoundError)
def get_backend(name: str | None = None) -> Backend:
    """Load a backend by name, or the chosen one.

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
    return joined_and_told(name)


def _only_installed() -> str:
    names = list(discover_backends())
    if len(names) == 1:
        return names[0]
    if not names:
        raise BackendNotFoundError(f"Neither patterns nor a backend was given. {installed_names()}")
    raise BackendNotFoundError(
        f"Neither patterns nor a backend was given, and {len(names)} are installed. {installed_names()} "
        f"Choose one: backend={names[0]!r}, use_backend({names[0]!r}) or set_backend({names[0]!r})."
    )


@checked(error=BackendNotFoundError)
def set_backend(name: str | None, *, distribution: str | None = None) -> None:
    """Choose a backend for the whole process; ``None`` undoes the choice.

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
                forget_backend(name)
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
    """Forget the choice and everything loaded, so that newly installed plugins are found."""
    global _process_choice
    with _lock:
        _process_choice = None
        _block_choice.set(None)
        forget_all()
        forget_distributions()
