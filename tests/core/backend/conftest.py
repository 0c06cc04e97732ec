"""Plugins that do not exist: folders that look like installed distributions."""

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedl_deploy.backend import reset_backends
from embedl_deploy.backend.loader import discovery

#: What most plugins of these tests start with; a test's own code comes after it.
PRELUDE = """
from embedl_deploy.backend import BackendInfo, hookimpl
from embedl_deploy.modules import FusedModule
from embedl_deploy.patterns import Pattern
from torch import nn
"""

DESCRIBE = """
@hookimpl
def embedl_deploy_describe():
    return BackendInfo("Acme Edge NPU")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install a distribution that ships one plugin.

    Args of the function:
        name: Of the entry point: ``"acme"``, or ``"tensorrt.acme"`` for an extension.
        code: The plugin module, after ``PRELUDE``; dedented.
        distribution: Its name; the module is named after it.
        requires: A requirement on other distributions.
        raw: The code is the whole module.
    """
    modules: list[str] = []

    def run(
        name: str,
        code: str = DESCRIBE,
        *,
        distribution: str = "acme",
        version: str = "1.2",
        requires: str | None = None,
        raw: bool = False,
    ) -> None:
        site = tmp_path / distribution
        module = f"{distribution.replace('-', '_')}_plugin"
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        source = textwrap.dedent(code)
        (site / f"{module}.py").write_text(source if raw else f"{PRELUDE}\n{source}", encoding="utf-8")
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(
            metadata + (f"Requires-Dist: {requires}\n" if requires else ""), encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(f"[embedl_deploy.backends]\n{name} = {module}\n", encoding="utf-8")
        modules.append(module)
        monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        reset_backends()

    reset_backends()
    yield run
    monkeypatch.undo()
    for module in modules:
        sys.modules.pop(module, None)
    importlib.invalidate_caches()
    reset_backends()


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Hide all plugins but those named."""

    def run(*names: str) -> None:
        installed = discovery.installed_plugins
        monkeypatch.setattr(discovery, "installed_plugins", lambda: [s for s in installed() if s.name in names])
        reset_backends()

    return run


@pytest.fixture
def describe() -> str:
    """The hook that every backend has, to be put before a test's own code."""
    return DESCRIBE
