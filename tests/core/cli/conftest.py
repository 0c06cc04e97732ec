"""A folder with models, data and a plugin whose compiler needs no hardware; commands in it, here or in a process."""

import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from embedl_deploy.backend import reset_backends
from embedl_deploy.cli import main

MODELS = """
    import torch
    from torch import nn

    class Net(nn.Sequential):
        def __init__(self, width=8):
            super().__init__(
                nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4),
            )

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = Net(), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.body(x))

    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.linear = nn.Embedding(5, 4), nn.Linear(4, 4)

        def forward(self, ids, mask):
            return self.linear(self.table(ids)) * mask

    class Chatty(Net):
        def __init__(self):
            super().__init__()
            print("words of the user's own")

    class Mlp(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

    class Deep(nn.Sequential):
        def __init__(self, width=64):
            super().__init__(nn.Conv2d(3, width, 3), *[nn.Conv2d(width, width, 3, padding=1) for _ in range(8)])

    ready = Net()
    number = 7

    def broken(reason):
        raise ValueError(reason)

    def nothing():
        return None
"""

PLUGIN = """
    import time
    from pathlib import Path

    from embedl_deploy.backend import BackendInfo, Build, Compiler, CompilerRefusedError, hookimpl
    from embedl_deploy.engine import Device, EngineLayer, EngineTensor, LayerKind

    class Quick(Compiler):
        name = "quick"

        def missing(self):
            return None

        def describe(self):
            return "Quick 1.0"

        def command(self, onnx, engine, options):
            return f"quick {onnx}"

        def build(self, onnx, options, progress):
            if options.target == "picky":
                raise CompilerRefusedError(["it is too wide"], ["node_conv2d"])
            if options.target == "slow":
                Path("started").touch()
                time.sleep(60)
            x = EngineTensor("x", (1, 3, 8, 8), "float16")
            layers = (EngineLayer("conv", LayerKind.CONVOLUTION, "conv", (x,), (x,), onnx_nodes=("node_conv2d",)),)
            return Build(b"engine", layers, options.target or "chip1", 0.5)

    class Absent(Quick):
        name = "absent"

        def missing(self):
            return "acmec is not installed: pip install acmec"

    @hookimpl
    def embedl_deploy_describe():
        return BackendInfo("Acme Edge NPU", "For tests.")

    @hookimpl
    def embedl_deploy_compilers():
        return [Absent(), Quick()]

    @hookimpl
    def embedl_deploy_devices():
        rates = {"float16": 1e12}
        return [Device("Acme 1", "chip1", 1e9, rates, "a guess"), Device("Acme 12", "chip1", 1e9, rates, "a guess")]
"""


class Done(NamedTuple):
    """What came of a command in this process."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models in ``nets.py``, calibration data, images, and distributions of plugins under ``site``."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "nets.py").write_text(textwrap.dedent(MODELS), encoding="utf-8")
    (folder / "damaged.py").write_text("import missing_package_of_the_user\n", encoding="utf-8")
    random = np.random.default_rng(0)
    np.save(folder / "data.npy", random.standard_normal((6, 3, 16, 16)))
    for place, name in enumerate(["b/3.jpg", "b/1.png", "a/2.PNG"]):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20 + place, 30, 3), dtype=np.uint8)).save(folder / "images" / name)
    (folder / "images" / "notes.txt").write_text("no image")
    for name, code in {"acme": PLUGIN, "broken": "import package_that_is_not_there"}.items():
        info = folder / "site" / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (folder / "site" / f"{name}_plugin.py").write_text(textwrap.dedent(code), encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[embedl_deploy.backends]\n{name} = {name}_plugin\n")
    return folder


@pytest.fixture
def folder(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, from which the workshop's things can be had."""
    for thing in ("nets.py", "damaged.py", "data.npy", "images"):
        (tmp_path / thing).symlink_to(workshop / thing)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module in ("nets", "damaged"):
        sys.modules.pop(module, None)


@pytest.fixture
def command(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command in this process."""

    def run(*arguments: object) -> Done:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Done(int(code), out, err)

    return run


@pytest.fixture(scope="session")
def environment(workshop: Path) -> dict[str, str]:
    """The environment of processes: with the plugins, and no wishes about colour."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**kept, "PYTHONPATH": str(workshop / "site"), "OMP_NUM_THREADS": "1", "TERM": "xterm"}


@pytest.fixture
def process(folder: Path, environment: dict[str, str]) -> Callable[..., Any]:
    """Run a command in a process of its own, its output in pipes."""

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "embedl_deploy", *map(str, arguments)],
            **{"capture_output": True, "text": True, "timeout": 60, "env": environment, "cwd": folder, **options},
        )

    return run


@pytest.fixture
def acme(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugins of the workshop, in this process."""
    monkeypatch.syspath_prepend(str(workshop / "site"))
    importlib.invalidate_caches()
    reset_backends()
    yield
    monkeypatch.undo()
    sys.modules.pop("acme_plugin", None)
    importlib.invalidate_caches()
    reset_backends()
