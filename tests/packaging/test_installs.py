"""The distributions as installed: from wheels (this test run), and editable."""

import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = ("embedl-deploy-core", "embedl-deploy-tensorrt", "embedl-deploy-sensai-stub")

REPORT = """
import embedl_deploy, embedl_deploy.tensorrt, embedl_deploy_sensai_stub, torch
from embedl_deploy.backend import list_backends
print(embedl_deploy.__file__, embedl_deploy.tensorrt.__file__, embedl_deploy_sensai_stub.__file__, sep="\\n")
assert all(status.usable for status in list_backends().values()), list_backends()
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
for name in ("tensorrt", "sensai"):
    assert embedl_deploy.transform(net, backend=name).report["applied_count"] == 1, name
"""


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_version_license_and_types_are_packaged(name):
    distribution = metadata.distribution(name)
    assert distribution.version == (ROOT / "VERSION").read_text().strip()
    assert distribution.metadata["License-Expression"] == "Apache-2.0"
    assert "torch" in " ".join(distribution.requires)


def test_backends_live_beside_the_core():
    import embedl_deploy
    import embedl_deploy.tensorrt
    import embedl_deploy_sensai_stub

    for module in (embedl_deploy, embedl_deploy.tensorrt, embedl_deploy_sensai_stub):
        assert (Path(module.__file__).parent / "py.typed").exists()


def test_editable_installs_work(tmp_path):
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*")) / "site-packages"
    # Torch and the rest come from the environment that runs this test, behind what is installed here.
    (site / "zz_parent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    editable = [argument for name in DISTRIBUTIONS for argument in ("-e", str(ROOT / "packages" / name))]
    subprocess.run([*install, *editable], check=True, cwd=tmp_path)
    done = subprocess.run([python, "-c", REPORT], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for path in done.stdout.split():
        assert Path(path).is_relative_to(ROOT / "packages"), "the installed wheel was imported, not the source"


def test_importing_the_core_costs_no_optional_package():
    code = "import sys, embedl_deploy; print([m for m in ('onnx', 'onnxruntime', 'onnxscript') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
