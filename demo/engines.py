"""What TensorRT for RTX makes of the network: engines built without a GPU, and their reports side by side."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from embedl_deploy import CompileResult, check, compile, export_onnx  # noqa: A004
from embedl_deploy.engine import compare
from embedl_deploy.errors import CompilerNotFoundError


def compile_engines(
    models: dict[str, nn.Module], image: torch.Tensor, output: Path, step: Callable[[str], None]
) -> str:
    """Export in float16 around the quantized places, check, compile; FP16 first, the others against it.

    Args:
        models: By name; the first is the reference.
        image: An input of batch size 1.
        output: Folder for the files.
        step: Is told what begins.

    Returns:
        Reports and comparisons, for people; or what to install, where no compiler is.
    """
    parts: list[str] = []
    results: list[CompileResult] = []
    for name, model in models.items():
        step(f"checking and compiling: {name}")
        file = output / f"engine_{name.lower().replace(', policy', '').replace(' ', '_')}.onnx"
        export_onnx(model, image, file, dtype=torch.float16)
        checked = check(file, backend="tensorrt")
        if not checked.ok:
            parts.append(str(checked))
        try:
            results.append(compile(file, backend="tensorrt", progress=False))
        except CompilerNotFoundError as error:
            return "\n".join([*parts, "No engine was built.", str(error)])
    parts += [str(result) for result in results]
    parts += [compare(results[0].report, result.report).verdict for result in results[1:]]
    return "\n".join([*parts, *(f"engine      {result.path}" for result in results)])
