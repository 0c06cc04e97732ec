"""Files of one network for ONNX Runtime, by embedl-deploy and by ONNX Runtime's own quantizers, and what they say.

What is compared in ``runtime.py``; each maker writes one ONNX file that any session of ONNX Runtime runs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from embedl_deploy import TransformationResult, export_onnx
from embedl_deploy.quantize import CalibrationMethod, QuantConfig, quantize
from embedl_deploy.tuning import tune
from embedl_deploy_onnxruntime import U8S8


@dataclass(frozen=True)
class Network:
    """A network with its data.

    Attributes:
        model: In evaluation mode.
        result: What transform made of it.
        calibration: Single samples, each a tuple of inputs.
        held_out: Others to judge by.
        trained: Whether its weights are real, so that accuracy means something.
    """

    model: nn.Module
    result: TransformationResult
    calibration: Sequence[tuple[torch.Tensor, ...]]
    held_out: Sequence[tuple[torch.Tensor, ...]]
    trained: bool


@dataclass(frozen=True)
class File:
    """A file that was made.

    Attributes:
        name: Of the row.
        path: Where it is.
        seconds: How long it took to make.
        megabytes: Its size.
    """

    name: str
    path: Path
    seconds: float
    megabytes: float

    @classmethod
    def made(cls, name: str, path: Path, start: float) -> "File":
        """A file that was made just now.

        Args:
            name: Of the row.
            path: Where it is.
            start: When making it began, by ``time.perf_counter()``.
        """
        return cls(name, path, time.perf_counter() - start, path.stat().st_size / 1e6)


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session on the processor, with the runtime's own optimizations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feed(made: onnxruntime.InferenceSession, sample: Sequence[torch.Tensor]) -> dict[str, Any]:
    """A sample by the names of a session's inputs."""
    return {value.name: tensor.numpy() for value, tensor in zip(made.get_inputs(), sample, strict=True)}


def outputs(path: Path, samples: Sequence[tuple[torch.Tensor, ...]]) -> torch.Tensor:
    """The first output for all samples, (N, ...)."""
    made = session(path, 2)
    return torch.from_numpy(np.concatenate([made.run(None, feed(made, sample))[0] for sample in samples]))


def embedl_deploy_files(network: Network, folder: Path, seconds: float) -> list[File]:
    """Float32, INT8 by both policies and tuned for time; with real weights also by learned rounding."""
    clipped = replace(U8S8, activation=replace(U8S8.activation, calibration_method=CalibrationMethod.MSE))
    learned: dict[str, Any] = {"learned_rounding": True}

    def quantized(config: QuantConfig, **methods: Any) -> nn.Module:
        return quantize(network.result, network.calibration, config, progress=False, **methods)

    def tuned() -> nn.Module:
        found = tune(
            network.result, network.calibration[:8], objective="latency", threads=1, seconds=seconds, progress=False
        )
        if not found.best.quantized:
            return found.result.model
        return quantize(found.result, network.calibration, found.config, progress=False)

    makers: dict[str, Callable[[], nn.Module]] = {
        "float32": lambda: network.result.model,
        "INT8 all": lambda: quantized(replace(U8S8, policy="all")),
        "INT8 mixed": lambda: quantized(replace(U8S8, policy="mixed")),
    }
    if network.trained:
        makers["INT8 mixed, learned"] = lambda: quantized(replace(clipped, policy="mixed"), **learned)
    if seconds:
        makers["INT8 tuned"] = tuned
    files = []
    for name, make in makers.items():
        start, path = time.perf_counter(), folder / f"{name.replace(', ', '_').replace(' ', '_')}.onnx"
        export_onnx(make(), network.held_out[0], path, integer_weights=name != "float32", tolerance=None)
        files.append(File.made(name, path, start))
    return files


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """Calibration samples for ONNX Runtime's quantizer."""

    def __init__(self, path: Path, samples: Sequence[tuple[torch.Tensor, ...]]) -> None:
        made = session(path, 2)
        self._feeds = iter([feed(made, sample) for sample in samples])

    def get_next(self) -> Any:
        """The next sample, by name; ``None`` at the end."""
        return next(self._feeds, None)


def onnxruntime_files(network: Network, folder: Path) -> list[File]:
    """``quantize_static`` and ``quantize_dynamic`` by ONNX Runtime's documentation, from torch's own export.

    Shapes are inferred and the graph is optimized beforehand (``quant_pre_process``); weights are symmetric, per
    channel; activations UINT8, which is what its documentation recommends for speed on x86.
    """
    plain, prepared = folder / "plain.onnx", folder / "prepared.onnx"
    torch.onnx.export(network.model, network.held_out[0], plain, dynamo=True, external_data=False, verbose=False)
    start = time.perf_counter()
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    preparing = time.perf_counter() - start

    def static(path: Path) -> None:
        quantize_static(
            prepared,
            path,
            _Reader(prepared, network.calibration),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )

    def dynamic(path: Path) -> None:
        quantize_dynamic(prepared, path, per_channel=True, weight_type=QuantType.QInt8)

    files = []
    for name, make in {"quantize_static": static, "quantize_dynamic": dynamic}.items():
        path, start = folder / f"{name}.onnx", time.perf_counter()
        make(path)
        files.append(File.made(name, path, start - preparing))
    return files
