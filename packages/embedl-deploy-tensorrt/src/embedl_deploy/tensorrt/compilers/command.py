"""The command line that does what a compilation did, for a machine that has NVIDIA's tools."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from embedl_deploy.backend import CompileOptions


def command_line(tool: str, onnx: Path, engine: Path, options: CompileOptions) -> str:
    """A call of ``trtexec``, or of ``tensorrt_rtx``, which takes the same options."""
    parts = [tool, f"--onnx={onnx}", f"--saveEngine={engine}", "--profilingVerbosity=detailed", "--skipInference"]
    if tool == "trtexec":
        parts += ["--stronglyTyped", "--dumpLayerInfo"]
    elif options.target is not None:
        parts.append(f"--computeCapabilities={options.target.removeprefix('sm')}")
    for flag, index in (("--minShapes", 0), ("--optShapes", 1), ("--maxShapes", 2)):
        if options.shapes:
            parts.append(f"{flag}={','.join(f'{name}:{_sizes(s[index])}' for name, s in options.shapes.items())}")
    if options.workspace is not None:
        parts.append(f"--memPoolSize=workspace:{options.workspace / 2**20:g}M")
    if options.timing_cache is not None:
        parts.append(f"--timingCacheFile={options.timing_cache}")
    if options.optimization_level is not None:
        parts.append(f"--builderOptimizationLevel={options.optimization_level}")
    if options.refit or options.strip_weights:
        parts.append("--refit")
    if options.strip_weights:
        parts.append("--stripWeights")
    return " ".join(shlex.quote(part) for part in parts)


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)
