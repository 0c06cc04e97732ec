"""The distributions as installed: from wheels (this test run), and editable."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = (
    "embedl-deploy-core",
    "embedl-deploy-tensorrt",
    "embedl-deploy-onnxruntime",
    "embedl-deploy-sensai-stub",
)

REPORT = """
import embedl_deploy, embedl_deploy.tensorrt, embedl_deploy_onnxruntime, embedl_deploy_sensai_stub, torch
from embedl_deploy.backend import list_backends
packages = (embedl_deploy, embedl_deploy.tensorrt, embedl_deploy_onnxruntime, embedl_deploy_sensai_stub)
print(*(package.__file__ for package in packages), sep="\\n")
assert all(status.usable for status in list_backends().values()), list_backends()
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
for name in ("tensorrt", "onnxruntime", "sensai"):
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
    import embedl_deploy_onnxruntime
    import embedl_deploy_sensai_stub

    for module in (embedl_deploy, embedl_deploy.tensorrt, embedl_deploy_onnxruntime, embedl_deploy_sensai_stub):
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


def test_source_distributions_build_by_themselves(tmp_path):
    """Away from the repository, into the wheels that the repository gives."""

    def build(target, source, folder):
        command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
        subprocess.run(command, check=True, capture_output=True, cwd=source)

    site = tmp_path / "site"
    for name in DISTRIBUTIONS:
        build("sdist", ROOT / "packages" / name, tmp_path)
        build("wheel", ROOT / "packages" / name, tmp_path / "wanted")
        (archive,) = tmp_path.glob(f"{name.replace('-', '_')}-*.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(tmp_path / "unpacked", filter="data")
        build("wheel", tmp_path / "unpacked" / archive.name.removesuffix(".tar.gz"), tmp_path)
        (wheel,) = tmp_path.glob(f"{name.replace('-', '_')}-*.whl")
        assert _contents(wheel) == _contents(tmp_path / "wanted" / wheel.name)
        if name == "embedl-deploy-core":
            assert {f"embedl_deploy/page/assets/page.{kind}" for kind in ("css", "js")} <= set(_contents(wheel))
        with zipfile.ZipFile(wheel) as opened:
            opened.extractall(site)
    paths = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", REPORT], capture_output=True, text=True, cwd=tmp_path, env=paths)
    assert done.returncode == 0, done.stderr
    assert all(Path(path).is_relative_to(site) for path in done.stdout.split())


def _contents(wheel):
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_importing_the_core_costs_no_optional_package():
    code = "import sys, embedl_deploy; print([m for m in ('onnx', 'onnxruntime', 'onnxscript') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
