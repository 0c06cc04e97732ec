"""Files of one network for ONNX Runtime, made by embedl-deploy, and what files say."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from embedl_deploy import TransformationResult, export_onnx
from embedl_deploy.quantize import CalibrationMethod, QuantConfig, quantize
from embedl_deploy.tuning import tune
from embedl_deploy_onnxruntime import DYNAMIC, U8S8
from runtime_sessions import Sample, opened


@dataclass(frozen=True)
class Network:
    """A network with its data.

    Attributes:
        model: In evaluation mode.
        result: What transform made of it.
        calibration: Single samples, each a tuple of inputs.
        held_out: Others to judge by.
        trained: Whether its weights are real, so that accuracy means something.
        attention: Whether it is a transformer.
    """

    model: nn.Module
    result: TransformationResult
    calibration: Sequence[Sample]
    held_out: Sequence[Sample]
    trained: bool
    attention: bool


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


def outputs(path: Path, samples: Sequence[Sample]) -> torch.Tensor:
    """The first output for all samples, (N, ...)."""
    run = opened(path, 2)
    return torch.from_numpy(np.concatenate([run(sample).copy() for sample in samples]))


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
        "INT8 dynamic": lambda: quantize(network.result, None, DYNAMIC, progress=False),
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
