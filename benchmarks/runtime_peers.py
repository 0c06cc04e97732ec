"""Files of one network by the quantizers that embedl-deploy is compared with: ONNX Runtime's own, and NNCF's."""

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from runtime_files import File, Network
from runtime_sessions import Sample, feed, session


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """Calibration samples for ONNX Runtime's quantizer."""

    def __init__(self, path: Path, samples: list[Sample]) -> None:
        made = session(path, 2)
        self._feeds = iter([feed(made, sample) for sample in samples])

    def get_next(self) -> Any:
        """The next sample, by name; ``None`` at the end."""
        return next(self._feeds, None)


def exported(network: Network, folder: Path) -> Path:
    """The export by torch itself, which all of them begin with."""
    path = folder / "plain.onnx"
    torch.onnx.export(network.model, tuple(network.held_out[0]), path, dynamo=True, external_data=False, verbose=False)
    return path


def onnxruntime_files(network: Network, plain: Path, folder: Path) -> list[File]:
    """``quantize_static`` and ``quantize_dynamic`` by ONNX Runtime's documentation.

    Shapes are inferred and the graph is optimized beforehand (``quant_pre_process``); weights are symmetric, per
    channel; activations UINT8, which is what its documentation recommends for speed on x86. Networks with real weights
    are also calibrated by percentiles.
    """
    prepared = folder / "prepared.onnx"
    start = time.perf_counter()
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    preparing = time.perf_counter() - start

    def static(path: Path, method: CalibrationMethod = CalibrationMethod.MinMax) -> None:
        quantize_static(
            prepared,
            path,
            _Reader(prepared, list(network.calibration)),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )

    def dynamic(path: Path) -> None:
        # It infers shapes again after it has transposed weights whose shapes are written down.
        model = onnx.load(prepared)
        del model.graph.value_info[:]
        quantize_dynamic(model, path, per_channel=True, weight_type=QuantType.QInt8)

    makers: dict[str, Callable[[Path], None]] = {"quantize_static": static, "quantize_dynamic": dynamic}
    if network.trained:
        makers["quantize_static, percentile"] = lambda path: static(path, CalibrationMethod.Percentile)
    files = []
    for name, make in makers.items():
        path, start = folder / f"{name.replace(', ', '_')}.onnx", time.perf_counter()
        make(path)
        files.append(File.made(name, path, start - preparing))
    return files


def openvino_files(network: Network, plain: Path, folder: Path) -> list[File]:
    """Float32 and NNCF's INT8 for OpenVINO, by NNCF's documentation; nothing where they are not installed.

    ``preset`` is ``MIXED`` (activations with a zero point), ``model_type`` is ``TRANSFORMER`` for networks with
    attention, which turns SmoothQuant on; bias correction is on by default.
    """
    if find_spec("nncf") is None or find_spec("openvino") is None:
        return []
    import nncf
    import openvino

    start = time.perf_counter()
    model = openvino.convert_model(plain)
    openvino.save_model(model, folder / "openvino.xml", compress_to_fp16=False)
    files = [File.made("OpenVINO float32", folder / "openvino.xml", start)]
    start = time.perf_counter()
    samples = [[tensor.numpy() for tensor in sample] for sample in network.calibration]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(samples),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
        model_type=nncf.ModelType.TRANSFORMER if network.attention else None,
    )
    openvino.save_model(quantized, folder / "nncf.xml", compress_to_fp16=False)
    files.append(File.made("NNCF INT8, OpenVINO", folder / "nncf.xml", start))
    return [replace(file, megabytes=file.megabytes + _weights(file.path)) for file in files]


def _weights(path: Path) -> float:
    return path.with_suffix(".bin").stat().st_size / 1e6
