"""Distributions of plugins that are broken, each in its own way, as projects that can be built and installed."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

_PROJECT = """
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "{version}"
dependencies = ["{core}"]

[project.entry-points."embedl_deploy.backends"]
{name} = "{module}"

[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that does not work.

    Attributes:
        name: Of the entry point.
        code: Of its module.
        reason: What is said of it.
        core: What it requires of the core.
    """

    name: str
    code: str
    reason: str
    core: str = "embedl-deploy-core"

    @property
    def distribution(self) -> str:
        """What is installed."""
        return f"plugin-{self.name}"

    @property
    def module(self) -> str:
        """What is imported."""
        return f"plugin_{self.name}"

    @property
    def origin(self) -> str:
        """How errors name it."""
        return f"{self.distribution} 2.7"

    def write(self, folder: Path) -> Path:
        """Write the project into a folder of its own in ``folder``."""
        project = folder / self.distribution
        project.mkdir(parents=True)
        settings = {"distribution": self.distribution, "version": "2.7", "core": self.core}
        text = _PROJECT.format(name=self.name, module=self.module, **settings)
        (project / "pyproject.toml").write_text(text, encoding="utf-8")
        (project / f"{self.module}.py").write_text(textwrap.dedent(self.code), encoding="utf-8")
        return project


BROKEN_PLUGINS = (
    BrokenPlugin("raising", "raise OSError('no driver found')", "cannot be imported: OSError: no driver found"),
    BrokenPlugin(
        "wronghook",
        """
        from embedl_deploy.backend import BackendInfo, hookimpl

        @hookimpl
        def embedl_deploy_describe():
            return BackendInfo("Wrong hook")

        @hookimpl
        def embedl_deploy_fusions(bakend):
            return []
        """,
        "has a wrong hook",
    ),
    BrokenPlugin(  # its metadata is enough to refuse it: its code, which may not fit the core, is not run
        "newercore",
        "raise AssertionError('imported')",
        "does not fit the installed core: it needs embedl-deploy-core>=99, but embedl-deploy-core 0.",
        core="embedl-deploy-core>=99",
    ),
)
