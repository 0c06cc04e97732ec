"""Centering: zero points for hardware that has none.

A tensor behind a ReLU has no negative values, so a symmetric format uses half of its numbers for it, and loses one bit.
An asymmetric one uses all of them, x ≈ s·(q − z), and a compiler that knows zero points of 0 alone can run it even so:
with c = −z·s, the middle of the range, x − c ≈ s·q is symmetric. The shift is folded into what is there already:

    before   y = clip(u, 0, 6)   becomes   y − c = clip(u − c, −c, 6 − c),   −c in the bias of the operator that gives u
    after    Σ w·y + b           becomes   Σ w·(y − c) + (b + c·Σ w),        with the weights as they are rounded

(Jacob et al. 2018, section 2.3, where the second is computed at every call; with −c in the file it is a constant.)
Where the second operator pads with zeros, these are −c after the shift: the tensor is padded with −c before it is
quantized, which is exact, because −c is s·z. Where the shift cannot be folded, as behind a GELU, it is an operator of
its own before the quantizer. Compilers may merge either with the quantizer.

The quantized model has asymmetric quantizers, so calibration, training and corrections need to know nothing of it.
``export_onnx`` shifts (:mod:`embedl_deploy.export.zero_points`).
"""

from collections import defaultdict
from dataclasses import dataclass, replace

from torch import fx

from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.graph.arguments import argument_at
from embedl_deploy.graph.uses import TargetUses
from embedl_deploy.modules import FusedModule
from embedl_deploy.numerics.points import PointKind, QuantPoint
from embedl_deploy.numerics.tensor_config import CalibrationMethod, TensorQuantConfig
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.placing.quantizer import Quantizer
from embedl_deploy.quantize.reporting.corrections import (
    Correction,
    NotCorrected,
    WhyNotCorrected,
    correction,
    not_corrected,
)
from embedl_deploy.validation.checked import checked

_WHAT = "centering"


@checked(error=QuantizationConfigError)
@dataclass(frozen=True)
class CenteringConfig:
    """Which tensors are centered.

    Attributes:
        padded: Also those that a convolution pads, for which the file has an operator more.
    """

    padded: bool = True


@dataclass(frozen=True)
class Centered:
    """A tensor that was looked at.

    Attributes:
        source: Name of the node that gives it.
        reader: Path of the first module that reads it, and which input.
        padding: What its readers pad it with, as ``F.pad`` takes it.
        problem: Why it is not centered.
    """

    source: str
    reader: str
    padding: tuple[int, ...] = ()
    problem: NotCorrected | None = None


def center(decisions: list[Decision], config: CenteringConfig) -> tuple[list[Decision], list[Centered]]:
    """Give tensors formats with a zero point, where all that reads them can make up for it.

    Args:
        decisions: What will be quantized.
        config: Which tensors.

    Returns:
        The decisions with other formats, and what became of each tensor.
    """
    outputs = {d.point.node for d in decisions if d.config and d.point.kind is PointKind.OUTPUT}
    uses = TargetUses(decisions[0].point.node.graph) if decisions else None
    formats: dict[int, TensorQuantConfig] = {}
    tensors = []
    for source, readers in _readers(decisions).items():
        assert uses is not None  # there are decisions
        if source in outputs:
            found: _Padding = not_corrected(WhyNotCorrected.QUANTIZED_AS_OUTPUT)
        else:
            found = _common_padding(readers, uses, config)
        reader = str(readers[0][0].point)
        if isinstance(found, NotCorrected):
            tensors.append(Centered(source.name, reader, problem=found))
            continue
        tensors.append(Centered(source.name, reader, found))
        formats.update((id(each), replace(own, symmetric=False, centered=True)) for each, own in readers)
    return [replace(each, config=formats.get(id(each), each.config)) for each in decisions], tensors


#: Decisions about a tensor's readers, each with its format.
_Readers = list[tuple[Decision, TensorQuantConfig]]
_Padding = tuple[int, ...] | NotCorrected


def _readers(decisions: list[Decision]) -> dict[fx.Node, _Readers]:
    """By the node that gives a tensor, who reads it quantized symmetrically."""
    found: dict[fx.Node, _Readers] = defaultdict(list)
    for decision in decisions:
        config = decision.config
        if decision.point.kind is PointKind.INPUT and config is not None and config.symmetric:
            source = argument_at(decision.point.node, decision.point.index)
            assert isinstance(source, fx.Node)  # points are where tensors flow in
            found[source].append((decision, config))
    return found


def _common_padding(readers: _Readers, uses: TargetUses, config: CenteringConfig) -> _Padding:
    """What all readers of a tensor pad it with, or why it cannot be centered."""
    if len({own for _, own in readers}) > 1:
        return not_corrected(WhyNotCorrected.SEVERAL_FORMATS)
    without = _why_no_zero_point(readers[0][1])
    if without is not None:
        return not_corrected(WhyNotCorrected.NO_ZERO_POINT, reason=without)
    paddings = [_padding(decision.point, uses, config) for decision, _ in readers]
    for padding in paddings:
        if isinstance(padding, NotCorrected):
            return padding
    return paddings[0] if len(set(paddings)) == 1 else not_corrected(WhyNotCorrected.PADDINGS_DIFFER)


def _padding(point: QuantPoint, uses: TargetUses, config: CenteringConfig) -> _Padding:
    """What one reader pads a tensor with."""
    module = point.module
    if not isinstance(module, FusedModule) or point.index != 0:
        problem = not_corrected(WhyNotCorrected.MODULE_DECLINES, reason="it is not what a weight is multiplied with")
        return replace(problem, reader=point.path)
    padding = module.input_padding()
    if isinstance(padding, str):
        problem = not_corrected(WhyNotCorrected.MODULE_DECLINES, reason=padding)
    elif uses.count(point.path) > 1:
        problem = not_corrected(WhyNotCorrected.MODULE_CALLED_SEVERAL_TIMES)
    elif any(part is module.input_quant_stubs.get(0) for part in module.modules()):
        problem = not_corrected(WhyNotCorrected.MODULE_DECLINES, reason="its quantizer is inside it")
    elif padding and not config.padded:
        problem = not_corrected(WhyNotCorrected.PADS)
    else:
        return padding
    return replace(problem, reader=point.path)


def _why_no_zero_point(config: TensorQuantConfig) -> str | None:
    """Why an asymmetric format like this one is not allowed, if it is not."""
    if config.precision.is_float:
        return f"{config.precision.name} is a floating-point format, which has no zero point"
    if config.calibration_method is CalibrationMethod.ENTROPY:
        return "ranges by ENTROPY are symmetric"
    return "its scale is learned, and zero points are not" if config.learnable else None


def centered_tensors(quantized: fx.GraphModule, tensors: list[Centered]) -> list[Correction]:
    """What became of each tensor, once its range is known.

    Args:
        quantized: Calibrated.
        tensors: What :func:`center` gave.
    """
    quantizers = {
        reader: part for part in quantized.modules() if isinstance(part, Quantizer) for reader in part.readers
    }
    done = []
    for tensor in tensors:
        middle = center_of(quantizers[tensor.reader])
        padded = f", padded by {', '.join(map(str, tensor.padding))}" if tensor.padding else ""
        outcome: str | NotCorrected = tensor.problem or f"at {middle:.4g}{padded}"
        if tensor.problem is None and middle == 0:
            outcome = not_corrected(WhyNotCorrected.ON_BOTH_SIDES)
        done.append(correction(_WHAT, tensor.source, outcome))
    return done


def center_of(quantizer: Quantizer) -> float:
    """The middle c = −z·s, the value that a centered tensor is shifted by; 0 for what is not centered."""
    if not quantizer.config.centered or quantizer.zero_point is None:
        return 0.0
    return -int(quantizer.zero_point) * float(quantizer.scale)
