"""A backend with the compilers that a test gives it, and a file to compile."""

import dataclasses

import pytest
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.backend import get_backend
from embedl_deploy.compiling import compilation, guarded
from support.nets import random_input, scrambled


@pytest.fixture(autouse=True)
def here(request, monkeypatch):
    """Call compilers in this process, which is quicker; not in tests that ask for ``apart``."""
    if "apart" not in request.fixturenames:
        monkeypatch.setattr(guarded, "build_apart", lambda compiler, *rest: compiler.build(*rest))


@pytest.fixture
def apart():
    """Call compilers in a process of their own, as users do."""


@pytest.fixture
def use(monkeypatch):
    def run(*compilers):
        backend = dataclasses.replace(get_backend("sensai"), compilers=compilers)
        monkeypatch.setattr(compilation, "get_backend", lambda name: backend)
        return compilers[0] if compilers else None

    return run


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    model = scrambled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))).eval()
    export_onnx(model, random_input(1, 3, 8, 8), path)
    return path
