"""What ``embedl-deploy new-backend`` writes, as its author meets it; ``./dev scaffold`` runs this."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from embedl_deploy import check, export_onnx, transform
from embedl_deploy.backend import discover_backends, reset_backends
from embedl_deploy.quantize import quantization_report, quantize
from embedl_deploy.scaffold import new_backend
from torchvision_import import import_torchvision

ROOT = Path(__file__).parents[3]
#: The repository's own settings, told where the sources of a backend are.
SETTINGS = ("--config", str(ROOT / "pyproject.toml"), "--config", "src = ['src']")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_backend("acme", tmp_path_factory.mktemp("new"), title="Acme Edge NPU")


@pytest.fixture(scope="module")
def site(project: Path) -> Path:
    """Where the backend is installed."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", project / "site", project], check=True
    )
    return project / "site"


def run(*command: str | Path, folder: Path, **variables: str) -> str:
    """What a command that ends well prints."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **variables})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("settings", [(), SETTINGS], ids=["its settings", "the repository's"])
@pytest.mark.parametrize("name", ["ab", "acme", "abcdefgh-jklmn-pqrst"])
def test_style(tmp_path, name, settings):
    folder = new_backend(name, tmp_path, title=name[0] * 2 * len(name))
    run(sys.executable, "-m", "ruff", "check", "--no-cache", *settings, ".", folder=folder)
    run(sys.executable, "-m", "ruff", "format", "--check", "--no-cache", *settings, ".", folder=folder)


@pytest.mark.parametrize("settings", ["pyproject.toml", str(ROOT / "pyproject.toml")], ids=["its", "the repository's"])
def test_strict_types(project, settings):
    command = ("-m", "mypy", "--config-file", settings, "--cache-dir", str(project.parent / "types"), "src", "tests")
    out = run(sys.executable, *command, folder=project, MYPYPATH=str(project / "src"))
    assert re.search(r"no issues found in 8 source files", out), out


def test_its_tests_and_the_conformance_kit_pass(project, site):
    out = run(sys.executable, "-m", "pytest", "-q", "-rs", folder=project, PYTHONPATH=str(site), OMP_NUM_THREADS="1")
    passed = re.search(r"(\d+) passed", out)
    assert passed is not None
    assert int(passed[1]) >= 70, out
    alone = (sys.executable, "-m", "pytest", "-q", "tests/test_pipeline.py")
    assert "4 passed" in run(*alone, folder=project, PYTHONPATH=str(site)), (
        "a file that is named is run without the kit"
    )


def test_readme_runs(project, site, tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (project / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    out = run(sys.executable, "-W", "error", "-c", block, folder=tmp_path, PYTHONPATH=str(site))
    assert "3 rewrites applied" in out
    assert "the first convolution stays in float" in out


def test_resnet18(site, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(site))
    reset_backends()
    assert discover_backends()["acme"] == "embedl-deploy-acme 0.1.0"
    torch.manual_seed(0)
    model = import_torchvision().models.resnet18(weights=None).eval()
    images = torch.randn(2, 3, 64, 64)
    result = transform(model, images, backend="acme")
    assert result.report["applied_count"] == 21, "20 convolutions and a classifier"
    assert result.verify(images).max_rel < 1e-4
    quantized = quantize(result, [images])
    report = quantization_report(quantized)
    assert {point.path for point in report.not_quantized} == {"conv1"}
    assert len(report.quantized) == 40, "input and weight of the other twenty"
    exported = export_onnx(quantized, images, tmp_path / "resnet18.onnx", integer_weights=True)
    assert exported.difference is not None, "ONNX Runtime has run it"
    checked = check(tmp_path / "resnet18.onnx", backend="acme")
    assert checked.ok
    assert checked.rules_checked == ("ACME-01",)
