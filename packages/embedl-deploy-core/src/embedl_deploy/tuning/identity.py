"""What the engines and accuracies of a search are of."""

import hashlib
import json
from collections.abc import Sequence

from torch import fx

from embedl_deploy.graph.fingerprint import fingerprint, tensors_fingerprint
from embedl_deploy.graph.inputs import tensors_in
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.quantize.reporting.report import quantization_report
from embedl_deploy.state_file import release
from embedl_deploy.tuning.accuracy import Call


def identity_of(
    result: TransformationResult,
    quantized: fx.GraphModule,
    calls: Sequence[Call],
    compiler: str,
    target: str | None,
    threads: int | None,
) -> dict[str, str]:
    """What engines and accuracies are of, by name. The objective is not: it is read from an engine's report.

    Args:
        result: The transformed model.
        quantized: The same with quantizers everywhere, calibrated.
        calls: What accuracy is measured on.
        compiler: The compiler and its version.
        target: What is compiled for.
        threads: What engines are timed with.
    """
    points = [(point.path, point.label, point.node, point.config) for point in quantization_report(quantized).points]
    return {
        "function": "tune",
        "release": release(),
        "model": tensors_fingerprint(sorted(result.model.state_dict().items())),
        "graph": fingerprint(result.model),
        "compiler": compiler,
        "target": str(target),
        "threads": str(threads),
        "config": hashlib.sha256(json.dumps(points).encode()).hexdigest(),
        "data": tensors_fingerprint((str(i), x) for i, x in enumerate(tensors_in(calls))),
        "calibration": tensors_fingerprint(sorted(quantized.state_dict().items())),
    }
