"""Runs that were interrupted go on behind the last finished block; other work is refused."""

import threading

import pytest
import torch

from embedl_deploy.errors import FileWriteError, InputError
from embedl_deploy.quantize import QuantConfig
from embedl_deploy.shards import load_quantized, quantize_shards, work, writing
from support.layered import batches, layered, on_meta, write_shards

DATA = batches()


@pytest.fixture(scope="module")
def empty():
    return on_meta(DATA[0])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_shards(layered(), tmp_path_factory.mktemp("weights") / "w")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Stopped(Exception):
    pass


@pytest.fixture
def half_done(tmp_path, empty, weights, monkeypatch):
    """A folder in which two blocks are done."""
    real = work.Work.quantize

    def stops(self, number, runs, done):
        if number == 2:
            raise Stopped
        return real(self, number, runs, done)

    with monkeypatch.context() as patched:
        patched.setattr(work.Work, "quantize", stops)
        with pytest.raises(Stopped):
            quantize_shards(empty, weights, tmp_path / "out", DATA, progress=False)
    return tmp_path / "out"


def test_only_what_is_left_is_done(half_done, empty, weights, monkeypatch):
    numbers, real = [], work.Work.quantize

    def noting(self, number, runs, done):
        numbers.append(number)
        return real(self, number, runs, done)

    monkeypatch.setattr(work.Work, "quantize", noting)
    quantize_shards(empty, weights, half_done, DATA, progress=False)
    assert numbers == [2, 3, 4]


def test_other_work_is_refused(half_done, empty, weights, tmp_path):
    other = layered()
    with torch.no_grad():
        other.last.bias += 1
    others = write_shards(other, tmp_path / "other")
    asked = {
        "model": lambda: quantize_shards(on_meta(DATA[0], layers=2), weights, half_done, DATA),
        "weights": lambda: quantize_shards(empty, others, half_done, DATA),
        "configuration": lambda: quantize_shards(empty, weights, half_done, DATA, smooth_quant=True),
        "calibration data": lambda: quantize_shards(empty, weights, half_done, batches(5)),
        "division into blocks": lambda: quantize_shards(empty, weights, half_done, DATA, blocks="layers.[01]"),
    }
    for what, run in asked.items():
        with pytest.raises(InputError, match=f"another {what}: .* Give another folder, or delete the folder"):
            run()


def test_lost_activations_are_told(half_done, empty, weights):
    next((half_done / ".activations" / "2").rglob("*.pt")).unlink()
    with pytest.raises(InputError, match="is not there: an interrupted run left it"):
        quantize_shards(empty, weights, half_done, DATA, progress=False)


def test_two_runs_at_once(tmp_path, empty, weights, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    real = work.Work.begin

    def waits(self, inputs, done):
        begun.set()
        go_on.wait(30)
        return real(self, inputs, done)

    monkeypatch.setattr(work.Work, "begin", waits)
    first = threading.Thread(target=quantize_shards, args=(empty, weights, tmp_path, DATA))
    first.start()
    begun.wait(30)
    with pytest.raises(InputError, match="is used by another run at this moment"):
        quantize_shards(empty, weights, tmp_path, DATA)
    go_on.set()
    first.join()
    load_quantized(empty, tmp_path)
    with pytest.raises(InputError, match="holds a finished model"):
        quantize_shards(empty, weights, tmp_path, DATA)


def test_a_full_disk(tmp_path, empty, weights, monkeypatch):
    from safetensors import torch as saving

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(saving, "save_file", full)
        with pytest.raises(FileWriteError, match="cannot be written: No space left on device"):
            quantize_shards(empty, weights, tmp_path, config=QuantConfig(activation=None))
    quantize_shards(empty, weights, tmp_path, config=QuantConfig(activation=None))
    assert (tmp_path / writing.RECIPE).exists()
