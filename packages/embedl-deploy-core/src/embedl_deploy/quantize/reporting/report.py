"""The quantization report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import fx

from embedl_deploy.errors import QuantizationError
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.page import render_page
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.quantize.grid.findings import Finding
from embedl_deploy.quantize.reporting.causes import UncoveredCause, WhyPoint, WhyUncovered, recorded_kind
from embedl_deploy.quantize.reporting.corrections import Correction, recorded_correction
from embedl_deploy.validation.checked import checked

#: ``model.meta`` entry of the report.
REPORT = "embedl_deploy.quantization"


@checked
@dataclass(frozen=True)
class PointReport:
    """The decision about one quantization point.

    Attributes:
        path: The module.
        label: The place in it: ``"input 0"``, ``"weight"`` (``"reduce.weight"`` where there are several), ``"output"``,
            or the name of an inner stub.
        node: Name of the node that calls the module.
        module: Class of the module.
        config: The format, in words; empty if the point is not quantized.
        rule: Which rule said so.
        stub: Path of the stub that holds the quantizer; points with the same one share it.
        kind: What is quantized there.
        index: Argument position, for inputs.
        format: The format itself; ``None`` if the point is not quantized.
        cause: The kind of rule; ``None`` in a model that was rebuilt from a recipe of an earlier release.
    """

    path: str
    label: str
    node: str
    module: str
    config: str
    rule: str
    stub: str
    kind: PointKind = PointKind.INPUT
    index: int = 0
    format: TensorQuantConfig | None = None
    cause: WhyPoint | None = None

    @property
    def quantized(self) -> bool:
        """Whether a quantizer stands there."""
        return self.format is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **vars(self),
            "kind": self.kind.value,
            "format": None if self.format is None else self.format.to_dict(),
            "cause": None if self.cause is None else self.cause.value,
        }


class _Uncovered(NamedTuple):
    node: str
    operator: str
    reason: str


class Uncovered(_Uncovered):
    """An operation that multiplies and accumulates, and has no quantization point: node, operator, reason.

    Attributes:
        node: Name of the node; of a part of a fused module that has points, its path.
        operator: Class or operation.
        reason: Why it has no point, in words.
        cause: The kind of reason.
    """

    cause: WhyUncovered

    def __new__(
        cls, node: str, operator: str, reason: str, cause: WhyUncovered = WhyUncovered.NOT_FUSED
    ) -> "Uncovered":
        """The three make the tuple, which a copy is made from; the kind stands beside it."""
        place = super().__new__(cls, node, operator, reason)
        place.cause = cause
        return place

    @classmethod
    def because(cls, node: str, operator: str, cause: UncoveredCause) -> "Uncovered":
        """An operation with what is known of it."""
        return cls(node, operator, str(cause), cause.why)


@checked
@dataclass(frozen=True)
class QuantizationReport:
    """Every quantization point of a model, and every operator that multiplies and accumulates but has no point.

    Attributes:
        points: In graph order.
        uncovered: Node name, operator, why it has no point; each with a ``cause``, the kind of reason. For an operator
            inside a fused module that has other points, its path instead of the node name.
        policy: Name of the policy that decided.
        corrections: What smoothing, equalization, bias correction and learned rounding did, layer by layer.
        vanishing: Tensors with a known range, such as a softmax, and the share of their sum that is rounded to zero,
            if calibration measured a quarter or more.
        findings: Suspicious results: tensors that were zero or constant in all calibration data, batches with much
            larger values than all others, scales that clip many values, channels of zeros in weights, and tensors that
            are no longer shared.
    """

    points: tuple[PointReport, ...]
    uncovered: tuple[Uncovered, ...]
    policy: str
    corrections: tuple[Correction, ...] = ()
    vanishing: tuple[tuple[str, float], ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def quantized(self) -> list[PointReport]:
        """The points that are quantized."""
        return [point for point in self.points if point.quantized]

    @property
    def not_quantized(self) -> list[PointReport]:
        """The points that are not."""
        return [point for point in self.points if not point.quantized]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "policy": self.policy,
            "points": [point.to_dict() for point in self.points],
            "uncovered": [{**entry._asdict(), "cause": entry.cause.value} for entry in self.uncovered],
            "corrections": [correction.to_dict() for correction in self.corrections],
        }

    def to_html(self) -> str:
        """The report as a page that needs nothing else; :func:`embedl_deploy.page.write_page` joins several."""
        return render_page(quantization=self)

    def __str__(self) -> str:
        weights = sum(point.kind is PointKind.WEIGHT for point in self.quantized)
        stubs = len({point.stub for point in self.quantized})
        lines = [
            f"Quantization: {len(self.quantized)} of {len(self.points)} points ({weights} weights) by {stubs} "
            f"quantizers; policy: {self.policy}"
        ]
        lines += [f"  {count:4} × {text}" for text, count in Counter(p.config for p in self.quantized).items()]
        for what in dict.fromkeys(correction.what for correction in self.corrections):
            found = [correction for correction in self.corrections if correction.what == what]
            places = [correction for correction in found if not correction.is_of_the_model]
            lines.append(f"{what.capitalize()}: {sum(not c.declined for c in places)} of {len(places)} places")
            lines += [f"  {c.where or 'the model'}: {c.outcome}" for c in found if c.declined or c.is_of_the_model]
        if self.vanishing:
            lines.append(
                "Rounded to zero, because most values are small compared with the largest (leave the module in float):"
            )
            lines += [f"  {name}: {share:.0%}" for name, share in self.vanishing]
        if self.findings:
            lines.append("Noticed:")
            lines += [f"  {finding}" for finding in self.findings]
        if self.not_quantized:
            lines.append("In float:")
            lines += [f"  {p.path} {p.label} ({p.module}): {p.rule}" for p in self.not_quantized]
        if self.uncovered:
            lines.append("Without a quantization point:")
            lines += [f"  {name} ({operator}): {reason}" for name, operator, reason in self.uncovered]
        return "\n".join(lines)


@checked
def quantization_report(model: fx.GraphModule | TransformationResult) -> QuantizationReport:
    """The report of a model that :func:`insert_qdq` made.

    Raises:
        QuantizationError: The model is not one.
    """
    if isinstance(model, TransformationResult):
        raise QuantizationError(
            "This is what transform returned, which is not quantized. Pass what quantize(result, data) returned; what "
            "was rewritten is in result.report."
        )
    report = getattr(model, "meta", {}).get(REPORT)
    if not isinstance(report, QuantizationReport):
        raise QuantizationError(
            f"The {type(model).__name__} is not a quantized model: it has no quantization report. Pass what insert_qdq "
            "or quantize returned."
        )
    return report


def as_recorded(
    report: QuantizationReport, points: Sequence[Mapping[str, Any]], corrections: Sequence[Mapping[str, Any]]
) -> QuantizationReport:
    """The report of a rebuilt model, with the rules and corrections that its recipe has.

    Args:
        report: Of the model.
        points: Rule and cause of each of its points, in the same order.
        corrections: As :meth:`Correction.to_dict` gives them.
    """
    told = zip(report.points, points, strict=True)
    return replace(
        report,
        points=tuple(replace(p, rule=entry["rule"], cause=recorded_kind(WhyPoint, entry)) for p, entry in told),
        corrections=tuple(recorded_correction(entry) for entry in corrections),
    )
