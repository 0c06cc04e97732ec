"""Sessions of ONNX Runtime, and what its errors say."""

import os
import re
from pathlib import Path
from typing import Any

import torch

from embedl_deploy.backend import CompilerRefusedError
from embedl_deploy.errors import InputError

_PROVIDER = "CPUExecutionProvider"
#: Beside what it raises as an error, nothing that it logs is of interest.
_ONLY_FATAL = 4
#: A node's name in an error.
_NAMED = (
    re.compile(r"node with name '([^']+)'"),
    re.compile(r"Name:'([^']+)' Status"),
    re.compile(r"[Nn]ode ?\(([^()]+)\)"),
)
_MOST_THREADS = 1024
_NO_KERNEL = "Could not find an implementation"
_NO_NUMPY = "No corresponding Numpy type"


def make_session(
    model: Path,
    level: int,
    threads: int | None,
    *,
    optimized: Path | None = None,
    profile: Path | None = None,
) -> Any:
    """A session on the processor.

    Args:
        model: The file.
        level: A ``GraphOptimizationLevel``.
        threads: How many compute an operator; by default torch's own number.
        optimized: Where the optimized model is to be written.
        profile: The beginning of the name of the file that times of nodes are to be written to.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
    options.intra_op_num_threads = threads_for(threads)
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Threads that wait for the next run with all their strength would slow down the other engine of a comparison.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(str(model), options, providers=[_PROVIDER])


def threads_for(asked: int | None) -> int:
    """Threads to run with: those that were asked for, or as many as torch uses in this process.

    Raises:
        InputError: They are more than any machine has use for; the runtime would start them all.
    """
    if asked is not None and asked > max(_MOST_THREADS, os.cpu_count() or 1):
        raise InputError(
            f"threads is {asked}; expected at most {_MOST_THREADS}. This machine has {os.cpu_count()} processors."
        )
    return torch.get_num_threads() if asked is None else asked


def level_of(name: str) -> int:
    """The number of a ``GraphOptimizationLevel``, such as ``"ORT_ENABLE_ALL"``."""
    import onnxruntime

    return int(getattr(onnxruntime.GraphOptimizationLevel, name).value)


def known_levels() -> dict[int, str]:
    """Names of all levels, by number."""
    import onnxruntime

    members = onnxruntime.GraphOptimizationLevel.__members__
    return {int(member.value): name for name, member in members.items()}


def refusal(error: Exception, advice: str | None = None) -> CompilerRefusedError:
    """What ONNX Runtime said, with the nodes that it names."""
    text = " ".join(str(error).split())
    nodes = [name for pattern in _NAMED for name in pattern.findall(text)]
    if _NO_KERNEL in text:
        advice = (
            "ONNX Runtime has no kernel for this operator in these types on the processor. Export what is not "
            "quantized in float32 (dtype=torch.float32)."
        )
    if _NO_NUMPY in text:
        advice = "ONNX Runtime gives outputs to numpy, which does not have their type. Export them in float32."
    return CompilerRefusedError([text], list(dict.fromkeys(nodes)), advice)
