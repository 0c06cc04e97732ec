"""Running engines with a stand-in for TensorRT, on the CPU: no machine at hand has a GPU that it supports."""

import ctypes
import enum
from types import SimpleNamespace

import pytest
import torch

from embedl_deploy.engine import EngineTensor
from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.tensorrt.compilers import TENSORRT_COMPILERS, running
from embedl_deploy.tensorrt.compilers.running import EngineOnGpu

Mode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
DataType = enum.Enum("DataType", "FLOAT HALF")
NAMES = {"x": (Mode.INPUT, (-1, 2), DataType.FLOAT), "y": (Mode.OUTPUT, (-1, 2), DataType.FLOAT)}


class Context:
    """Doubles the input, in the memory that it was told of; takes at most four rows."""

    def __init__(self):
        self.shape, self.addresses, self.works = None, {}, True

    def set_input_shape(self, name, shape):
        self.shape = shape
        return shape[0] <= 4

    def get_tensor_shape(self, name):
        return self.shape

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        count = self.shape[0] * self.shape[1]
        x, y = ((ctypes.c_float * count).from_address(self.addresses[name]) for name in ("x", "y"))
        y[:] = [2 * value for value in x]
        return self.works


class Engine:
    num_io_tensors = 2

    def __init__(self):
        self.context = Context()

    def get_tensor_name(self, index):
        return list(NAMES)[index]

    def get_tensor_mode(self, name):
        return NAMES[name][0]

    def get_tensor_shape(self, name):
        return NAMES[name][1]

    def get_tensor_dtype(self, name):
        return NAMES[name][2]

    def create_execution_context(self):
        return self.context


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        self.at = stream.cuda_stream

    def elapsed_time(self, other):
        return 2.5  # milliseconds


@pytest.fixture
def trt(monkeypatch):
    """The module's stand-in, and a GPU's."""
    made = SimpleNamespace(engine=Engine())
    logger = type("ILogger", (), {"Severity": SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)})
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda content: made.engine if content == b"engine" else None)
    made.Runtime, made.ILogger, made.TensorIOMode = (lambda logger: runtime), logger, Mode
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: SimpleNamespace(cuda_stream=7, synchronize=lambda: None))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(running, "_DEVICE", "cpu")
    return made


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.engine"
    path.write_bytes(b"engine")
    return path


def test_it_says_what_it_reads_and_writes_and_runs(trt, file):
    engine = EngineOnGpu(trt, file, None)
    assert engine.inputs == (EngineTensor("x", (-1, 2), "float32"),)
    assert engine.outputs == (EngineTensor("y", (-1, 2), "float32"),)
    for rows in (1, 3):  # another shape each time
        x = torch.arange(2.0 * rows).reshape(rows, 2)
        (y,) = engine.run([x])
        assert torch.equal(y, 2 * x)


def test_times_are_those_of_the_gpus_events(trt, file):
    assert EngineOnGpu(trt, file, None).time([torch.ones(1, 2)], 3, 0.0) == [2.5e-3] * 3


def test_what_goes_wrong_is_said(trt, file):
    engine = EngineOnGpu(trt, file, None)
    with pytest.raises(InputError, match=r"net\.engine does not take 'x' in the shape \(5, 2\)"):
        engine.run([torch.ones(5, 2)])
    trt.engine.context.works = False
    with pytest.raises(CompileError, match=r"net\.engine failed: no reason was given"):
        engine.run([torch.ones(1, 2)])
    with pytest.raises(InputError, match=r"threads is 2, but net\.engine runs on a GPU"):
        EngineOnGpu(trt, file, 2)
    file.write_bytes(b"other")
    with pytest.raises(CompileError, match=r"net\.engine cannot be loaded: no reason was given"):
        EngineOnGpu(trt, file, None)


def test_without_a_gpu_it_says_so(trt, file, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CompileError, match="an engine runs on an NVIDIA GPU, and this machine has none"):
        EngineOnGpu(trt, file, None)


def test_the_real_module_has_what_is_called():
    rtx = next(compiler for compiler in TENSORRT_COMPILERS if compiler.name == "tensorrt-rtx")
    if rtx.missing() is not None:
        pytest.skip(str(rtx.missing()))
    from embedl_deploy.tensorrt.compilers.rtx import _module

    module = _module()
    for stand_in, real in ((Engine, module.ICudaEngine), (Context, module.IExecutionContext)):
        called = [name for name in vars(stand_in) if not name.startswith("_")]
        assert [name for name in called if not hasattr(real, name)] == []
    assert {Mode.INPUT.name, Mode.OUTPUT.name} <= set(module.TensorIOMode.__members__)
    assert hasattr(module.Runtime, "deserialize_cuda_engine")
