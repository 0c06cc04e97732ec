"""Running and timing engines on the command line."""

import json

import numpy as np
import pytest
import torch

from embedl_deploy import compile, export_onnx  # noqa: A004
from embedl_deploy.cli import main

B = ("-b", "onnxruntime")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    torch.manual_seed(0)
    model, x = torch.nn.Linear(4, 3).eval(), torch.randn(2, 4)
    folder = tmp_path_factory.mktemp("engines")
    export_onnx(model, x, folder / "net.onnx", dynamic_batch=True)
    compile(folder / "net.onnx", backend="onnxruntime", threads=1)
    return folder, model


@pytest.fixture
def command(built, monkeypatch, capsys):
    monkeypatch.chdir(built[0])

    def run(*arguments):
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


def test_run(command, built):
    folder, model = built
    x = np.arange(8, dtype=np.float64).reshape(2, 4)
    np.savez(folder / "named.npz", input=x)
    np.save(folder / "plain.npy", x)
    for file in ("named.npz", "plain.npy"):
        code, out, _ = command("run", "net.ort.engine", *B, "--inputs", file, "-o", "out.npz", "--json")
        assert code == 0
        assert json.loads(out) == {"outputs": [{"name": "linear", "shape": [2, 3], "dtype": "float32"}]}
        with np.load(folder / "out.npz") as arrays:
            wanted = model(torch.from_numpy(x).float()).detach().numpy()
            np.testing.assert_allclose(arrays["linear"], wanted, rtol=1e-5)
    code, out, _ = command("run", "net.ort.engine", *B, "--shape", "input=5,4")
    assert code == 0 and "net.ort.engine: input ?×4 float32 → linear ?×3 float32" in out and "linear: 5×3" in out


def test_benchmark(command):
    code, out, _ = command("benchmark", *["net.ort.engine"] * 2, *B, "--seconds", "0.05", "--threads", "1", "--json")
    assert code == 0
    first, second = json.loads(out)
    assert first["threads"] == second["threads"] == 1
    assert first["runs"] >= 20 and 0 < first["low_quartile"] <= first["median"] <= first["high_quartile"]
    code, out, _ = command("benchmark", *["net.ort.engine"] * 2, *B, "--seconds", "0.05")
    assert code == 0 and [line.endswith(" ×") for line in out.splitlines()] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "x=1"], "shapes names 'x', but the inputs of net.ort.engine are 'input'"),
        (["--shape", "input=2,5"], "has the shape ?×4, but 2×5 was given"),
        (["--shape", "input"], "'input' is not NAME=SHAPE, such as x=8,3,224,224"),
        (["--threads", "0"], "threads is 0; expected a positive number"),
        (["--inputs", "wrong.npz"], "'x' not known"),
        (["--inputs", "wrong.npz", "--shape", "input=1,4"], "--shape is for inputs that are made up"),
        (["--shape", "input=99999999999,4"], "--shape input takes"),
    ],
)
def test_wrong_arguments_are_named(command, built, arguments, message):
    np.savez(built[0] / "wrong.npz", x=np.ones((1, 4)))
    for name in ("run", "benchmark"):
        code, _, err = command(name, "net.ort.engine", *B, *arguments)
        assert code == 2 and message in err
