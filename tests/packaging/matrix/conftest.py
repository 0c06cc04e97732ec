"""Environments of their own for the matrix: ``./dev matrix`` runs it, with ``--wheels`` naming the distributions.

The environments are empty but for what is installed into them. What the distributions depend on, torch above all, comes
from the environment that runs the tests, which has none of the distributions.
"""

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

from support.plugin_projects import BROKEN_PLUGINS

ROOT = Path(__file__).parents[3]
CORE = "embedl-deploy-core"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--wheels", type=Path, required=True, metavar="DIR", help="wheels of the distributions")


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the folder with the wheels of all that can be installed into it."""

    home: Path
    wheels: Path

    @property
    def python(self) -> Path:
        return self.home / "bin" / "python"

    def pip(self, *arguments: str | Path) -> None:
        """Call pip, of the environment that runs the tests, for this one."""
        command = [sys.executable, "-m", "pip", "--quiet", "--python", self.python, *arguments]
        subprocess.run(command, check=True, cwd=self.home)

    def install(self, *distributions: str) -> None:
        self.pip("install", "--no-deps", "--no-index", "--no-compile", "--find-links", self.wheels, *distributions)

    def uninstall(self, distribution: str) -> None:
        self.pip("uninstall", "--yes", distribution)

    def run(self, code: str) -> str:
        """What a program prints in this environment; it must end well."""
        done = subprocess.run([self.python, "-W", "error", "-c", code], capture_output=True, text=True, cwd=self.home)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """``embedl-deploy`` as it was installed."""
        program = self.home / "bin" / "embedl-deploy"
        return subprocess.run([program, *arguments], capture_output=True, text=True, cwd=self.home)


def make(home: Path, wheels: Path) -> Environment:
    """An environment with nothing installed."""
    installed = [dist.name for dist in metadata.distributions() if dist.name.startswith("embedl-deploy")]
    assert not installed, f"{', '.join(installed)} would be seen in every environment: run this by ./dev matrix"
    venv.create(home)
    site = next((home / "lib").glob("python*")) / "site-packages"
    (site / "zz_parent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return Environment(home, wheels)


@pytest.fixture(scope="session")
def core_alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = make(tmp_path_factory.mktemp("core"), request.config.getoption("wheels").resolve())
    environment.install(CORE)
    return environment


@pytest.fixture(scope="session")
def wheels(core_alone: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of the distributions, of a new backend, of the example of an extension, and of broken plugins."""
    folder = tmp_path_factory.mktemp("projects")
    done = core_alone.command("new-backend", "acme", "--directory", folder)
    assert done.returncode == 0, done.stderr
    projects = [
        folder / "embedl-deploy-acme",
        ROOT / "examples" / "embedl-deploy-tensorrt-inhouse",
        *(plugin.write(folder) for plugin in BROKEN_PLUGINS),
    ]
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder / "wheels"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, *projects], check=True)
    for wheel in core_alone.wheels.glob("*.whl"):
        (folder / "wheels" / wheel.name).symlink_to(wheel)
    return folder / "wheels"


@pytest.fixture(scope="session")
def new_environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """Makes an environment with distributions installed."""

    def run(*distributions: str) -> Environment:
        environment = make(tmp_path_factory.mktemp("environment"), wheels)
        environment.install(*distributions)
        return environment

    return run
