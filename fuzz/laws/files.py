"""Laws of ONNX files: ONNX Runtime computes what the model does, and the checker can read them."""

import tempfile
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented  # noqa: A004 - its own name

from embedl_deploy import check, export_onnx
from fuzz.laws.law import Broken, LeftOut, law
from fuzz.laws.quantizing import quantized
from fuzz.laws.subject import Subject, leaves, signal_to_noise

#: Networks that compute in 16 bits somewhere are given more than this.
SINGLE = 1e-3


def _run_file(path: Path, subject: Subject, dtype: torch.dtype | None) -> list[torch.Tensor]:
    """Outputs of a file for inputs 1, which it was not exported with."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if subject.backend != "onnxruntime":  # as the file says; the runtime's own rewrites of INT8 are for its own files
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except NotImplemented as missing:
        if subject.tolerance > SINGLE:
            raise LeftOut from missing  # a part in 16 bits that the runtime has no kernel for
        raise
    tensors = leaves(subject.inputs(1))
    names = [entry.name for entry in session.get_inputs()]
    if len(names) != len(tensors):
        raise Broken(f"the file has inputs {names}, and the model {len(tensors)}")
    feeds = {}
    for name, tensor in zip(names, tensors, strict=True):
        wanted = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
        feeds[name] = wanted.numpy()
    return [torch.from_numpy(array) for array in session.run(None, feeds)]


def _try_file(subject: Subject, model: Any, wanted: Any, least: float, **options: Any) -> None:
    args, kwargs = subject.inputs(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_onnx(model, args, path, kwargs=kwargs, **options)
        report = check(str(path), backend=subject.backend)
        if report.rules_failed:
            raise Broken(f"check: rules failed: {report.rules_failed}")
        got = _run_file(path, subject, options.get("dtype"))
    shapes = [tuple(t.shape) for t in got], [tuple(t.shape) for t in leaves(wanted)]
    if shapes[0] != shapes[1]:
        raise Broken(f"the file gives shapes {shapes[0]}, the model {shapes[1]}")
    decibels = signal_to_noise(got, wanted)
    if decibels < least:
        raise Broken(f"the file is {decibels:.1f} dB from the model; {least:g} are expected")


@law(share=0.06)
def onnx_float(subject: Subject) -> None:
    """A float file agrees with the user's model."""
    _try_file(subject, subject.result, subject.outputs, 30 if subject.tolerance > SINGLE else 60)


@law(share=0.02)
def onnx_float16(subject: Subject) -> None:
    """A float16 file is near the user's model."""
    _try_file(subject, subject.result, subject.outputs, 20, dtype=torch.float16)


@law(share=0.04)
def onnx_int8(subject: Subject) -> None:
    """A quantized file is near the quantized model."""
    model = quantized(subject, "onnx_int8")
    integers = subject.rng("onnx_int8 weights").random() < 0.5
    _try_file(subject, model, subject.run(model), 15, integer_weights=integers)
