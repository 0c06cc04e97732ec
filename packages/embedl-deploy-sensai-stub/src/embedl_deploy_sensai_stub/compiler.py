"""The hand-over to Lattice's tools, as a compiler of the backend.

There is no engine in it. Lattice's neural network compiler makes one, for an accelerator that Lattice Radiant builds
into the FPGA; both are Lattice's own programs, and nothing here pretends to be them. What is written is what can be
known without them: the quantized ONNX file, after every rule was kept, and what it means in fixed point.
"""

import io
import json
import time
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedl_deploy import check
from embedl_deploy.artifact import read_onnx
from embedl_deploy.backend import Build, CompileOptions, Compiler, CompilerRefusedError, Progress, Severity
from embedl_deploy.engine import EngineLayer, EngineTensor, LayerKind
from embedl_deploy.errors import InputError
from embedl_deploy_sensai_stub.handover import HandOver, Layer, Tensor, hand_over

if TYPE_CHECKING:
    import onnx_ir as ir

_VERSION = 1
_NO_ENGINE = (
    "This is a hand-over, not an engine: Lattice's neural network compiler must build the engine from it, for an "
    "accelerator that Lattice Radiant builds into the FPGA."
)
_NOT_CHECKED = (
    "Nothing in it was tried with Lattice's compiler; the README of embedl-deploy-sensai-stub says what is assumed."
)
#: What the engine runs; a reshape is nothing to run.
_KINDS = {
    "convolution": LayerKind.CONVOLUTION,
    "depthwise convolution": LayerKind.CONVOLUTION,
    "linear": LayerKind.GEMM,
    "max pooling": LayerKind.POOLING,
    "global average pooling": LayerKind.POOLING,
    "sum": LayerKind.POINTWISE,
}


class SensaiHandOver(Compiler):
    """Writes a zip file with ``model.onnx``, ``handover.json`` and ``README.txt``."""

    name = "handover"
    suffix = ".zip"

    def missing(self) -> str | None:
        """Nothing: it needs no tool of Lattice's, and takes the place of none."""
        return None

    def describe(self) -> str:
        """Name and version."""
        return f"sensAI hand-over {version('embedl-deploy-sensai-stub')}"

    def command(self, onnx: Path, engine: Path, options: CompileOptions) -> str | None:
        """None: no command line of Lattice's compiler is public."""
        return None

    def build(self, onnx: Path, options: CompileOptions, progress: Progress) -> Build:
        """Check a file and describe it in fixed point."""
        start = time.perf_counter()
        _refuse_options(options)
        progress("checking", 0, 2)
        model = _completed(read_onnx(onnx))
        warnings = _checked(model)
        progress("describing", 1, 2)
        told = hand_over(model)
        messages = [_NO_ENGINE, _NOT_CHECKED, *warnings]
        archive = _archive(_model_bytes(onnx), told, onnx.name, messages)
        progress("describing", 2, 2)
        layers = tuple(_engine_layer(layer) for layer in told.layers if layer.kind in _KINDS)
        return Build(archive, layers, "lattice-sensai", time.perf_counter() - start, tuple(messages))


def _refuse_options(options: CompileOptions) -> None:
    """Nothing can be asked for that only Lattice's tools decide."""
    given = [name for name, default in vars(CompileOptions()).items() if getattr(options, name) != default]
    unknown = [name for name in given if name != "timeout"]  # it takes no time worth limiting
    if unknown:
        raise InputError(
            f"The sensAI hand-over has no option {', '.join(unknown)}; leave it out, and choose in Lattice's tools."
        )


def _completed(model: "ir.Model") -> "ir.Model":
    """The model with local functions inlined and missing shapes inferred."""
    from onnx_ir.passes.common import InlinePass, ShapeInferencePass

    model = InlinePass()(model).model
    return ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model).model


def _checked(model: "ir.Model") -> list[str]:
    """Ask every rule.

    Returns:
        What is less than an error.

    Raises:
        CompilerRefusedError: A rule is broken, or one could not judge; names the nodes.
    """
    report = check(model, backend="sensai")
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    refusals = [f"{found.rule} at {found.module or found.node}: {found.message}" for found in errors]
    refusals += [f"{place.rule} cannot judge {place.node}: {place.reason}" for place in report.undecided]
    if refusals:
        nodes = [found.node for found in errors] + [place.node for place in report.undecided if place.node is not None]
        raise CompilerRefusedError(refusals, list(dict.fromkeys(nodes)))
    others = [found for found in report.findings if found.severity is Severity.WARNING]
    return [f"{found.rule} at {found.module or found.node}: {found.message}" for found in others]


def _model_bytes(onnx: Path) -> bytes:
    """The file as it is; with its weights in it, if they are in a second file."""
    import onnx_ir as ir

    model = ir.load(onnx)
    if not any(isinstance(value.const_value, ir.ExternalTensor) for value in model.graph.initializers.values()):
        return onnx.read_bytes()
    return bytes(ir.to_proto(ir.external_data.load_to_model(model)).SerializeToString())


def _archive(model: bytes, told: HandOver, name: str, messages: Sequence[str]) -> bytes:
    """The zip file; the same for the same model, so without dates."""
    plain = {
        "format": "embedl-deploy sensAI hand-over",
        "version": _VERSION,
        "source": name,
        "model": "model.onnx",
        "messages": list(messages),
        **told.to_dict(),
    }
    files: dict[str, Any] = {
        "README.txt": "\n".join([*messages, "", "Remaining work besides what the engine does:", *told.outside, ""]),
        "handover.json": json.dumps(plain, indent=1),
        "model.onnx": model,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _engine_layer(layer: Layer) -> EngineLayer:
    constants = (layer.weight, layer.bias)
    return EngineLayer(
        layer.name,
        _KINDS[layer.kind],
        f"{layer.kind} with ReLU" if layer.relu else layer.kind,
        inputs=tuple(_engine_tensor(tensor) for tensor in layer.inputs),
        outputs=(_engine_tensor(layer.output),),
        constants=tuple(
            _engine_tensor(tensor, in_float=tensor is layer.bias) for tensor in constants if tensor is not None
        ),
        onnx_nodes=layer.onnx_nodes,
    )


def _engine_tensor(tensor: Tensor, *, in_float: bool = False) -> EngineTensor:
    """In the words of the engine's report; a tensor without a scale has the type that it has in the file."""
    shape = tuple(-1 if size is None else size for size in tensor.shape or ())
    if tensor.fractional_bits is None or in_float:
        return EngineTensor(tensor.name, shape, "float32")
    return EngineTensor(tensor.name, shape, "int8", f"{tensor.fractional_bits} fractional bits")


SENSAI_COMPILERS = (SensaiHandOver(),)
