"""More models that are quantized from shards as in memory, and a run that is killed at four places."""

import os
import signal

import pytest

from embedl_deploy.quantize import CalibrationMethod, Precision, QuantConfig, SmoothQuantConfig, TensorQuantConfig
from embedl_deploy.shards import block_quantization, quantize_shards, work
from support.as_in_memory import check_as_in_memory
from support.layered import batches, layered, on_meta, write_shards

DATA = batches()
METHODS = {"smooth_quant": True, "learned_rounding": True}
PERCENTILE = TensorQuantConfig(calibration_method=CalibrationMethod.PERCENTILE)
CASES = {
    "INT8, one batch": (DATA[:1], None, {}),
    "FP8": (DATA, QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8)), {}),
    "smoothed": (DATA, None, {"smooth_quant": True}),
    "smoothed by a strength": (DATA, None, {"smooth_quant": SmoothQuantConfig(0.5)}),
    "smoothed, rounding learned": (DATA, None, METHODS),
    "smoothed, one batch": (DATA[:1], None, {"smooth_quant": True}),
    "smoothed, rounding learned, more samples than are recorded": (batches(5, samples=20), None, METHODS),
}


@pytest.mark.parametrize("case", CASES)
def test_as_in_memory(tmp_path, case):
    check_as_in_memory(tmp_path, *CASES[case])


def test_data_that_is_read_once(tmp_path):
    check_as_in_memory(tmp_path, DATA, QuantConfig(activation=PERCENTILE), {}, generator=True)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def killed(run, place):
    """Runs in a process of its own, which kills itself at a place."""
    child = os.fork()
    if child == 0:
        place()
        run()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def kill_at(module, name, number):
    """Kill the process in a call of a function, before it does anything."""

    def place():
        count, real = 0, getattr(module, name)

        def replaced(*args, **kwargs):
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(module, name, replaced)

    return place


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes can be forked here")
def test_killed_again_and_again(tmp_path):
    empty, weights = on_meta(DATA[0]), write_shards(layered(), tmp_path / "w")

    def run(folder):
        return quantize_shards(empty, weights, folder, DATA, **METHODS, progress=False)

    wanted = run(tmp_path / "at once")
    places = [
        (block_quantization, "calibrate", 2),  # in the second block
        (work, "write_tensors", 1),  # again in it: activations are written, weights are not
        (work.Finished, "of", 2),  # in the third: weights are written, the state is not
        (work, "write_index", 1),  # at the end
    ]
    out = tmp_path / "out"
    for module, name, number in places:
        assert killed(lambda: run(out), kill_at(module, name, number))
    report = run(out)
    assert files(out) == files(tmp_path / "at once")
    assert report.quantization == wanted.quantization
    assert [block.name for block in report.blocks] == [block.name for block in wanted.blocks]
