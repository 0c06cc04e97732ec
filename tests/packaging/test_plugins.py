"""Plugins as installed: a new backend, the examples, and broken ones beside them.

They are built and installed for real, into a folder that joins the path of this process. ``./dev matrix`` tries more
combinations, in environments of their own.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from embedl_deploy import check, export_onnx, transform
from embedl_deploy.backend import discover_backends, get_backend, list_backends, reset_backends
from embedl_deploy.cli import main
from embedl_deploy.cli.exit_codes import ExitCode
from embedl_deploy.errors import PluginError
from embedl_deploy.quantize import QuantConfig, quantization_report, quantize
from embedl_deploy.scaffold import new_backend
from support.plugin_projects import BROKEN_PLUGINS

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TINY = EXAMPLES / "embedl-deploy-tiny"
INHOUSE = EXAMPLES / "embedl-deploy-tensorrt-inhouse"
MODULES = (
    *("embedl_deploy_acme", "embedl_deploy_tiny", "embedl_deploy_tensorrt_inhouse"),
    *(plugin.module for plugin in BROKEN_PLUGINS),
)


def imported() -> set[str]:
    """Those of the plugins' modules that have been imported."""
    return {name.partition(".")[0] for name in sys.modules} & set(MODULES)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plugins are installed."""
    folder = tmp_path_factory.mktemp("plugins")
    projects = [new_backend("acme", folder), TINY, INHOUSE, *(plugin.write(folder) for plugin in BROKEN_PLUGINS)]
    options = [
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--no-compile",
        "--quiet",
        "--target",
        folder / "site",
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *projects], check=True)
    return folder / "site"


@pytest.fixture
def plugins(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugins, not yet imported."""
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    reset_backends()
    yield
    monkeypatch.undo()
    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        del sys.modules[name]
    importlib.invalidate_caches()
    reset_backends()


@pytest.mark.usefixtures("plugins")
class TestSideBySide:
    def test_none_is_imported_before_it_is_asked_for(self):
        assert {"acme", "tiny", "raising", "wronghook", "newercore"} < set(discover_backends())
        assert imported() == set()
        get_backend("tiny")
        assert imported() == {"embedl_deploy_tiny"}
        get_backend("tensorrt")
        assert imported() == {"embedl_deploy_tiny", "embedl_deploy_tensorrt_inhouse"}

    def test_broken_ones_are_named_and_the_others_work(self):
        statuses = list_backends()
        for plugin in BROKEN_PLUGINS:
            assert statuses[plugin.name].origin == plugin.origin
            assert plugin.reason in (statuses[plugin.name].error or "")
            with pytest.raises(PluginError) as caught:
                get_backend(plugin.name)
            assert str(caught.value) == statuses[plugin.name].error
            assert caught.value.distribution == plugin.origin
        working = {name for name, status in statuses.items() if status.usable}
        assert working == {"acme", "onnxruntime", "sensai", "tensorrt", "tensorrt.inhouse", "tiny"}

    def test_the_command_line_says_the_same(self, capsys):
        assert main(["backends"]) == 0
        out = capsys.readouterr().out
        for plugin in BROKEN_PLUGINS:
            assert f"{plugin.name} ({plugin.origin}): broken" in out
            assert plugin.reason in out
            assert main(["plan", "torch.nn:ReLU", "--backend", plugin.name]) == ExitCode.REFUSED
            assert f"Backend {plugin.name!r} (from {plugin.origin}) {plugin.reason}" in capsys.readouterr().err
        assert "acme (embedl-deploy-acme 0.1.0)\n" in out


def test_a_new_backend_passes_its_own_tests(site):
    """Those that export nothing, and the kit's of one pattern; ``./dev scaffold`` runs all, and more."""
    project = site.parent / "embedl-deploy-acme"
    selected = "is_fused or in_float or (LinearReLUPattern and not ONNX)"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", selected],
        capture_output=True,
        text=True,
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 10, done.stdout
    assert "skipped" not in done.stdout


class TestTiny:
    def test_is_as_short_as_the_tutorial_says(self):
        (code,) = TINY.rglob("*.py")
        assert len(code.read_text(encoding="utf-8").splitlines()) < 120

    def test_goes_all_the_way(self, plugins, tmp_path, capsys):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Hardtanh(0, float("inf"))),
            *(nn.Conv2d(4, 5, 3), nn.Hardtanh(0, 6), nn.Flatten(), nn.Linear(80, 3)),
        ).eval()
        images = torch.randn(2, 3, 8, 8)
        result = transform(model, images, backend="tiny")
        kinds = [
            type(result.model.get_submodule(str(n.target))).__name__
            for n in result.model.graph.nodes
            if "module" in n.op
        ]
        assert kinds == ["TinyConv", "TinyConv", "Hardtanh", "Flatten", "TinyLinear"]
        assert result.verify(images).max_rel < 1e-5
        quantized = quantize(result, [images])
        assert {point.path for point in quantization_report(quantized).not_quantized} == {"0"}
        export_onnx(quantized, images, tmp_path / "net.onnx")
        (finding,) = check(tmp_path / "net.onnx", backend="tiny").findings
        assert (finding.rule, finding.message, finding.module) == ("TINY-01", "it has 5 output channels", "3")
        assert main(["check", str(tmp_path / "net.onnx"), "-b", "tiny", "--json"]) == 0, "a warning is no error"
        assert json.loads(capsys.readouterr().out)["findings"][0]["rule"] == "TINY-01"


@pytest.mark.usefixtures("plugins")
class TestInhouse:
    def test_its_fusion_comes_before_tensorrts(self):
        model, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).eval(), torch.randn(2, 4)
        result = transform(model, x, backend="tensorrt")
        assert type(result.model.get_submodule("0")).__name__ == "InhouseLinearTanh"
        assert result.verify(x).max_rel < 1e-6
        assert get_backend("tensorrt").fusions[0].name == "LinearTanhPattern"

    def test_its_policy_objects_beside_tensorrts(self):
        model, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).eval(), torch.randn(2, 5, 4)
        result = transform(model, x, backend="tensorrt")
        report = quantization_report(quantize(result, [x], QuantConfig(policy="mixed")))
        assert {(point.path, point.rule) for point in report.not_quantized} == {
            (
                "0",
                "policy tensorrt's 'mixed' (from embedl-deploy-tensorrt-inhouse 1.0): the kernel for Linear → Tanh has "
                "no INT8 version",
            )
        }

    def test_the_command_line_says_what_is_whose(self, capsys):
        assert main(["backends", "-v", "-b", "tensorrt"]) == 0
        out = capsys.readouterr().out
        assert "tensorrt.inhouse (embedl-deploy-tensorrt-inhouse 1.0) brings\n" in out
        assert "    fusions: LinearTanhPattern\n    policies: mixed" in out
