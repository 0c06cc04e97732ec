"""The function ``verify_stages``."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import fx, nn

from embedl_deploy.artifact import read_onnx
from embedl_deploy.capture import normalize_args
from embedl_deploy.compiling import load_engine
from embedl_deploy.errors import InputError
from embedl_deploy.export import run_onnx
from embedl_deploy.graph.inputs import require_samples, tensors_in
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.stages.layers import LayerDifference, compare_layers
from embedl_deploy.stages.onnx_layers import compare_onnx_layers
from embedl_deploy.stages.rewrites import RewriteDifference, compare_rewrites
from embedl_deploy.validation.checked import checked
from embedl_deploy.verify import Difference, difference, output_tensors, signal_to_noise
from embedl_deploy.verify.difference import run_on_given

#: Signal to noise where the noise is a tenth of the signal, in dB.
_TENTH = 20.0
#: What a stage can be given as.
Stage = nn.Module | TransformationResult | str | os.PathLike[str]


@checked
@dataclass(frozen=True)
class StageDifference:
    """How far the outputs of a stage are from the original's.

    Attributes:
        name: Of the stage.
        sqnr: Signal to quantization noise of the outputs, in dB.
        difference: The largest difference.
    """

    name: str
    sqnr: float
    difference: Difference


@checked
@dataclass(frozen=True)
class Verification:
    """How far every stage is from the original.

    Attributes:
        stages: In the order in which they were given.
        layers: By stage, its layers against those of the graph before it, or its fused modules against what they
            replaced; empty unless asked for.
    """

    stages: tuple[StageDifference, ...]
    layers: Mapping[str, tuple[LayerDifference, ...]]

    @checked
    def first_below(self, sqnr: float) -> tuple[str, LayerDifference] | None:
        """The first layer, and its stage, whose SQNR is below a value in dB; ``None`` if there is none."""
        for stage, layers in self.layers.items():
            for layer in layers:
                if layer.sqnr < sqnr:
                    return stage, layer
        return None

    def largest_drop(self) -> tuple[str, LayerDifference, float] | None:
        """The layer that adds most noise to the worst one before it in its stage: (stage, layer, dB lost).

        What is lost is infinite where all layers before it agree to the bit, or there are none.
        """
        worst: tuple[str, LayerDifference, float] | None = None
        most = 0.0
        for stage, layers in self.layers.items():
            lowest = math.inf
            for layer in layers:
                if isinstance(layer, RewriteDifference):
                    continue  # it has inputs of its own, without the noise of those before it
                added = _noise(layer.sqnr) - _noise(lowest) if lowest > -math.inf else 0.0
                if added > most:
                    worst, most = (stage, layer, lowest - layer.sqnr), added
                lowest = min(lowest, layer.sqnr)
        return worst

    def _first_below_a_tenth(self, stage: str) -> LayerDifference | None:
        """The first layer of a stage whose noise is a tenth of the signal or more: what follows makes more of it."""
        layers = (each for each in self.layers[stage] if not isinstance(each, RewriteDifference))
        return next((layer for layer in layers if layer.sqnr < _TENTH), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; infinite ones as ``None``."""
        return {
            "stages": [_plain(asdict(stage)) for stage in self.stages],
            "layers": {name: [_plain(asdict(layer)) for layer in layers] for name, layers in self.layers.items()},
        }

    def __str__(self) -> str:
        width = max(len(stage.name) for stage in self.stages)
        lines = [f"{s.name.ljust(width)}  {s.sqnr:6.1f} dB  {s.difference}" for s in self.stages]
        for stage_name, layers in self.layers.items():
            wrong = [layer for layer in layers if isinstance(layer, RewriteDifference) and layer.is_wrong]
            lines += [f"{stage_name}: not what it replaced: {layer}" for layer in wrong]
        drop = self.largest_drop()
        if drop is not None:
            stage, layer, lost = drop
            how_much = f"{lost:.1f} dB" if math.isfinite(lost) else "from no difference"
            lines.append(f"{stage}: most is lost at {layer.module or layer.node}: {how_much}, to {layer.sqnr:.1f} dB")
            early = self._first_below_a_tenth(stage)
            if early is not None and early is not layer:
                lines[-1] += f"; already {early.sqnr:.1f} dB at {early.module or early.node}"
        return "\n".join(lines)


def _noise(sqnr: float) -> float:
    """Σ (y' − y)² / Σ y²."""
    return math.inf if sqnr == -math.inf else float(10 ** (-sqnr / 10))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    sqnr, (max_abs, max_rel) = values["sqnr"], values["difference"]
    return {
        **values,
        "sqnr": sqnr if math.isfinite(sqnr) else None,
        "difference": {"max_abs": max_abs, "max_rel": max_rel},
    }


@checked
def verify_stages(
    reference: nn.Module,
    args: Any,
    stages: Mapping[str, Stage],
    *,
    kwargs: dict[str, Any] | None = None,
    layers: bool = False,
    backend: str | None = None,
) -> Verification:
    """Run every stage on the same inputs and compare its outputs with the original's.

    Args:
        reference: The model as it came.
        args: Inputs: a tuple, or one tensor.
        stages: By name, in order: a module or the result of ``transform``; the path of an ONNX file (ending in
            ``.onnx``), run in ONNX Runtime; or the path of an engine, run by the backend's compiler where the machine
            has the hardware for it.
        kwargs: Keyword inputs; for stages that are modules.
        layers: Also look inside. Of a result of ``transform`` every fused module is compared with the nodes that it
            replaced, on the same inputs. Every other graph is compared with the graph before it, node by node, and
            every ONNX file with the graph before it, module by module; nodes are found by their names, so this tells
            most between a transformed model and the same model quantized, and between a model and its file.
        backend: Name of the backend whose compiler runs engines.

    Raises:
        InputError: An argument does not fit.
        FusedModuleError: A module that a pattern put into a stage raises.
        ExportError: An ONNX file cannot be run.
        CompileError: An engine cannot be run here, or nothing that is installed runs it.
    """
    inputs, named = normalize_args(args, kwargs)
    require_samples(inputs or (), named)
    if inputs is None:
        raise InputError("args is None; verify_stages needs inputs, for example args=(torch.randn(1, 3, 8, 8),).")
    if not stages:
        raise InputError("stages is empty; expected for example {'fused': result, 'ONNX Runtime': 'model.onnx'}.")
    if named and any(isinstance(stage, (str, os.PathLike)) for stage in stages.values()):
        raise InputError("kwargs are for modules; files take positional inputs only, so pass all inputs in args.")
    wanted = output_tensors(run_on_given(reference, inputs, named))
    found: list[StageDifference] = []
    by_layer: dict[str, tuple[LayerDifference, ...]] = {}
    graph_before = reference if isinstance(reference, fx.GraphModule) else None
    for name, stage in stages.items():
        model = stage.model if isinstance(stage, TransformationResult) else stage
        outputs = _outputs(name, model, inputs, named, backend)
        try:
            largest = difference(wanted, outputs)  # first, because it compares the shapes
        except InputError as error:
            raise _located(error, stage, inputs, named) from error
        found.append(StageDifference(name, signal_to_noise(wanted, outputs), largest))
        if isinstance(model, fx.GraphModule):
            if layers and isinstance(stage, TransformationResult):
                by_layer[name] = compare_rewrites(stage, inputs, named)
            elif layers and graph_before is not None:
                by_layer[name] = compare_layers(graph_before, model, inputs, named)
            graph_before = model
        elif layers and graph_before is not None and _is_onnx(model):
            path = Path(model)
            given = _as_the_file_has_them(path, tensors_in(inputs))
            by_layer[name] = compare_onnx_layers(graph_before, path, inputs, named, given)
    return Verification(tuple(found), by_layer)


def _located(error: InputError, stage: Stage, inputs: tuple[Any, ...], named: dict[str, Any]) -> InputError:
    """The error about outputs that cannot be compared, with the fused modules that it comes from."""
    rewrites = compare_rewrites(stage, inputs, named) if isinstance(stage, TransformationResult) else ()
    wrong = [str(rewrite) for rewrite in rewrites if rewrite.is_wrong]
    return InputError(f"{error} Not what it replaced: {'; '.join(wrong)}.") if wrong else error


def _outputs(
    name: str, stage: Any, inputs: tuple[Any, ...], named: dict[str, Any], backend: str | None
) -> list[torch.Tensor]:
    if isinstance(stage, nn.Module):
        return output_tensors(run_on_given(stage, inputs, named, f"Stage {name!r}"))
    if not isinstance(stage, (str, os.PathLike)):
        raise InputError(f"Stage {name!r} is a {type(stage).__name__}; expected a module, a result or a file's path.")
    path = Path(stage)
    if not path.is_file():
        raise InputError(f"Stage {name!r}: there is no file {os.fspath(path)!r}.")
    tensors = tensors_in(inputs)
    if _is_onnx(path):
        return run_onnx(path, *_as_the_file_has_them(path, tensors))
    return list(load_engine(path, backend=backend).run(tensors).values())


def _is_onnx(stage: Stage) -> TypeGuard[str | os.PathLike[str]]:
    return not isinstance(stage, (nn.Module, TransformationResult)) and Path(stage).suffix == ".onnx"


def _as_the_file_has_them(path: Path, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The inputs in the floating-point types of an ONNX file, which may be exported in another one than the model's."""
    wanted = [value.dtype for value in read_onnx(path).graph.inputs]
    if len(wanted) != len(tensors):
        return tensors  # running the file says what is wrong
    floats = {"FLOAT16": torch.float16, "FLOAT": torch.float32, "DOUBLE": torch.float64}
    names = [dtype.name if dtype is not None else "" for dtype in wanted]
    return [
        tensor.to(floats[name]) if tensor.is_floating_point() and name in floats else tensor
        for tensor, name in zip(tensors, names, strict=True)
    ]
