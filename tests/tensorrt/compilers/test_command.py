"""The command line that does what a compilation did."""

from pathlib import Path

import torch

from embedl_deploy.backend import CompileOptions, get_backend
from embedl_deploy.tensorrt.compilers import TensorRT, TensorRTForRTX

ONNX, ENGINE = Path("a b.onnx"), Path("a.engine")


def test_every_option_has_its_flag():
    options = CompileOptions(
        shapes={"x": ((1, 3), (4, 3), (8, 3)), "y": ((1,), (1,), (2,))},
        workspace=1 << 30,
        timing_cache=Path("times"),
        strip_weights=True,
        optimization_level=4,
    )
    assert TensorRT().command(ONNX, ENGINE, options) == (
        "trtexec '--onnx=a b.onnx' --saveEngine=a.engine --profilingVerbosity=detailed --skipInference "
        "--stronglyTyped --dumpLayerInfo --minShapes=x:1x3,y:1 --optShapes=x:4x3,y:1 --maxShapes=x:8x3,y:2 "
        "--memPoolSize=workspace:1024M --timingCacheFile=times --builderOptimizationLevel=4 --refit --stripWeights"
    )


def test_the_target_of_the_other_tool():
    command = TensorRTForRTX().command(ONNX, ENGINE, CompileOptions(target="sm120"))
    assert command.startswith("tensorrt_rtx ")
    assert "--computeCapabilities=120" in command


def test_full_tensorrt_says_what_is_missing():
    if not torch.cuda.is_available():
        assert "GPU" in TensorRT().missing()


def test_the_backend_prefers_full_tensorrt_and_knows_gpus():
    backend = get_backend("tensorrt")
    assert [compiler.name for compiler in backend.compilers] == ["tensorrt", "tensorrt-rtx"]
    for device in backend.devices:
        assert device.bandwidth > 1e11
        assert device.operations["int8"] > device.operations["float16"] > 1e13
        assert device.source.startswith("NVIDIA")
