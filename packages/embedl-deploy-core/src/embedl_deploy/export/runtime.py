"""Running an ONNX file in ONNX Runtime."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from embedl_deploy.artifact import inline_functions, module_of, read_onnx, widen_constants
from embedl_deploy.errors import ExportError, InputError
from embedl_deploy.export.failures import explain_nodes
from embedl_deploy.export.missing_kernels import compute_in_float32
from embedl_deploy.export.out_of_range import OutOfRange
from embedl_deploy.export.rounding_to_e2m1 import round_to_e2m1
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir

#: Formats that ONNX Runtime 1.31 has no kernels for, and others that have all their numbers.
_WIDER = {"FLOAT4E2M1": "FLOAT8E4M3FN", "FLOAT8E8M0": "FLOAT"}
#: What to know about a file that was run in another form.
_STORED_WIDER = "ONNX Runtime lacks E2M1 or E8M0: numbers in them were run in a wider format, which has them all."
_COMPUTED_WIDER = (
    "ONNX Runtime lacks a CPU kernel for a 16-bit operator of the file: operators were run in float32, and their "
    "results rounded."
)


@dataclass(frozen=True)
class Ran:
    """What a file gave.

    Attributes:
        outputs: In the graph's order.
        notes: What to know about how it was run.
    """

    outputs: list[torch.Tensor]
    notes: tuple[str, ...] = ()


@checked
def run_onnx(path: str | os.PathLike[str], *inputs: torch.Tensor) -> list[torch.Tensor]:
    """Run an ONNX file on the CPU.

    What ONNX Runtime has no 16-bit kernel for is computed in float32, and each result rounded to the type in the file;
    stored numbers in formats that it does not have are given to it in a wider one.

    Args:
        path: The file.
        *inputs: One tensor per input of the graph, in its order.

    Returns:
        The outputs, in the graph's order.

    Raises:
        ExportError: ONNX Runtime is not installed, or refuses the file or the inputs.
        InputError: The number of inputs does not fit.
    """
    return run_file(path, inputs).outputs


def run_file(path: str | os.PathLike[str], inputs: Sequence[torch.Tensor]) -> Ran:
    """The same, with what to know about it.

    Raises:
        ExportError: ONNX Runtime is not installed, or refuses the file or the inputs.
        InputError: The number of inputs does not fit.
    """
    try:
        return Ran(_run(path, inputs))
    except _NoKernelError as missing:
        found = _run_wider(path, inputs)
        if found is None:
            raise ExportError(str(missing)) from missing.__cause__
        return found


class _NoKernelError(ExportError):
    """ONNX Runtime refuses a file whose operators it may have in wider types."""


def _run(path: str | os.PathLike[str], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Run a file as it stands.

    Raises:
        _NoKernelError: It may run in wider types.
        ExportError: ONNX Runtime is not installed, or refuses the file.
        InputError: The number of inputs does not fit.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            "Running an ONNX file needs ONNX Runtime: pip install 'embedl-deploy-core[onnxruntime]', or pass "
            "tolerance=None to export without running."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it logs as an error is in the exception, too
    options.intra_op_num_threads = torch.get_num_threads()  # as was said where processes share the cores
    # Compute what the file says. Otherwise quantized operators are replaced by integer kernels, which FP8 has not, and
    # beyond the basic level ONNX Runtime 1.31 computes convolutions between FP8 quantizers wrongly. At that level it
    # takes zeros around a max pooling for no padding, which is wrong where all numbers are below zero, and moves a
    # Transpose to the other side of LayerNormalization, whose axis it leaves where it was.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.enable_cpu_mem_arena = False  # which grows by doubling, for sessions that run more than once
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["Pad_Fusion", "TransposeOptimizer"],
        )
    except Exception as error:  # ONNX Runtime's own exception types are not exported
        kind = _NoKernelError if "Could not find an implementation" in str(error) else ExportError
        raise kind(f"ONNX Runtime refuses {os.fspath(path)!r}: {error}{_without_kernel(error)}") from error
    names = [value.name for value in session.get_inputs()]
    if len(names) != len(inputs):
        raise InputError(f"{os.fspath(path)!r} has the inputs {names}, but {len(inputs)} were given.")
    if any(value.dtype is torch.bfloat16 for value in inputs):
        raise _NoKernelError(f"{os.fspath(path)!r} cannot be run on inputs in bfloat16, which numpy does not have.")
    feed: dict[str, npt.NDArray[Any]] = {
        name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in zip(names, inputs, strict=True)
    }
    try:
        return [torch.from_numpy(np.asarray(value)) for value in session.run(None, feed)]
    except Exception as error:  # as above
        said = f"ONNX Runtime fails in {os.fspath(path)!r}: {error}"
        raise _NoKernelError(f"{said.rstrip()}.{explain_nodes(read_onnx(path), {}, said)}") from error


def _run_wider(path: str | os.PathLike[str], inputs: Sequence[torch.Tensor]) -> Ran | None:
    """Run a file whose numbers are stored in wider formats, and whose operators are let compute in float32.

    Each only if ONNX Runtime does not run the file otherwise; ``None`` if neither is possible or enough.
    """
    import onnx_ir as ir

    model, notes = read_onnx(path), []
    narrow = [value.dtype is ir.DataType.BFLOAT16 for value in model.graph.outputs]
    for widen, said in ((_store_wider, _STORED_WIDER), (compute_in_float32, _COMPUTED_WIDER)):
        if not widen(model):
            continue
        notes.append(said)
        with tempfile.TemporaryDirectory() as folder:
            wide = Path(folder) / "model.onnx"
            ir.save(model, wide, external_data="model.onnx.data")
            try:
                found = _run(wide, [value.float() if value.dtype is torch.bfloat16 else value for value in inputs])
            except _NoKernelError:
                continue
        outputs = [value.bfloat16() if is_narrow else value for value, is_narrow in zip(found, narrow, strict=True)]
        return Ran(outputs, tuple(notes))
    return None


def _store_wider(model: "ir.Model") -> bool:
    """Have numbers in formats that ONNX Runtime lacks in wider ones, stored and computed, those of functions too."""
    inline_functions(model)
    stored = widen_constants(model, _WIDER)
    return round_to_e2m1(model) or stored


def _without_kernel(error: Exception) -> str:
    """Advice for a file that ONNX Runtime understands but cannot compute."""
    if "Could not find an implementation" not in str(error):
        return ""
    return (
        ". The file is valid, but ONNX Runtime has no CPU kernel for this operator in the types that the file has. To "
        "export it without running it here, pass tolerance=None to export_onnx."
    )


def first_not_finite(path: Path, inputs: list[torch.Tensor]) -> OutOfRange | None:
    """The first node of a file that makes NaN or plus infinity of finite numbers; ``None`` if none does."""
    import onnx_ir as ir

    model = read_onnx(path)
    floats = (ir.DataType.FLOAT16, ir.DataType.FLOAT)
    names = [value.name for value in model.graph.outputs]
    for node in model.graph:
        for value in node.outputs:
            if value.dtype in floats and value.name not in names:
                names.append(value.name)
                model.graph.outputs.append(value)
    with tempfile.TemporaryDirectory() as folder:
        widened = Path(folder) / "model.onnx"
        ir.save(model, widened, external_data="model.onnx.data")
        values = dict(zip(names, run_onnx(widened, *inputs), strict=True))
    broken = {name for name, value in values.items() if bool((value.isnan() | (value == float("inf"))).any())}
    for node in model.graph:
        if any(value.name in broken for value in node.outputs) and not any(v and v.name in broken for v in node.inputs):
            return OutOfRange(f"what {node.op_type} computes in module {module_of(node) or ''!r}", None, torch.float16)
    return None
