"""Checks that the quantization points of a fusion exist, and that the module computes with their quantizers."""

import torch
from torch import fx, nn

from embedl_deploy.backend import PointKind
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.modules import (
    FusedModule,
    QuantStub,
    named_weights,
    products_without_place,
    reason_of_part,
    weights_besides,
)
from embedl_deploy.patterns import Example, PatternMatch
from embedl_deploy.quantize import PointReport, calibrate, insert_qdq, quantization_report
from embedl_deploy.quantize.calibration.flow import watching_places
from embedl_deploy.quantize.placing.points import POSITIONS, patterns_by_node, points_of
from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply
from embedl_deploy.testing.subjects import PatternSubject, config_of, for_each_example, placed_by
from embedl_deploy.testing.tensors import run, with_distinct_weights
from embedl_deploy.verify import output_tensors


@for_each_example
def points_exist(subject: PatternSubject, example: Example) -> None:
    """Every input that ``qdq_points`` names is an argument of the call, and one that the module quantizes."""
    if not subject.pattern.qdq_points:
        raise DoesNotApply("it declares no qdq_points")
    for node, module, match in placed_by(subject.rewrite(with_distinct_weights(example.model), example)):
        _require_points(node, module, match)


def _require_points(node: fx.Node, module: nn.Module, match: PatternMatch) -> None:
    name = type(module).__name__
    for point in sorted(match.pattern.qdq_points, key=lambda point: point.value):
        position = POSITIONS.get(point)
        if position is None:
            continue
        if position >= len(node.args) or not isinstance(node.args[position], fx.Node):
            raise ConformanceFailure(
                f"qdq_points names {point.name}, but {name} is called with {len(node.args)} arguments",
                f"a tensor as argument {position}",
            )
        if not isinstance(module, FusedModule) or position in module.input_quant_stubs:
            continue
        if not module.input_quant_stubs and module.why_not_quantized:
            continue  # the module opts out, and says why
        raise ConformanceFailure(
            f"qdq_points names {point.name}, argument {position}, but {name} declares no such input: its "
            f"input_quant_stubs are {sorted(module.input_quant_stubs)}",
            f"{position} in inputs_to_quantize, or why_not_quantized",
        )


@for_each_example
def weights_have_places(subject: PatternSubject, example: Example) -> None:
    """Every weight in a quantized module has a quantization point, or the module says why not."""
    looked = False
    for node, module, match in placed_by(subject.rewrite(with_distinct_weights(example.model), example)):
        if not match.pattern.qdq_points or not isinstance(module, FusedModule):
            continue
        looked = True
        weights = named_weights(module)
        misnamed = [f"{weight.place}: {weight.problem}" for weight in weights if weight.problem is not None]
        if misnamed:
            raise ConformanceFailure(
                f"{type(module).__name__} has a weight stub that belongs to no weight, {misnamed[0]}", "its name"
            )
        for path, part, _ in weights_besides(module, [weight.path for weight in weights]):
            if reason_of_part(module, path) is None:
                raise ConformanceFailure(
                    f"{type(part).__name__} at {path} of {node.target} ({type(module).__name__}) has no quantization "
                    "point for its weight",
                    "a point, or why_not_quantized",
                )
        for product in products_without_place(module):
            if product.of_parameter and reason_of_part(module, product.path) is None:
                raise ConformanceFailure(
                    f"{product.product} by {product.path} of {node.target} ({type(module).__name__}) has no "
                    "quantization point for that weight",
                    "a point, or why_not_quantized",
                )
    if not looked:
        raise DoesNotApply("it places no FusedModule with points for quantizers")


class _Witness(nn.Module):
    """Stands in for a quantizer, and sees whether it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.called = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Its input."""
        self.called = True
        return x


@for_each_example
def stubs_are_used(subject: PatternSubject, example: Example) -> None:
    """What a quantizer in ``weight_fake_quant``, or in another stub inside the module, gives is computed with."""
    idle = _idle_stubs(subject, example)
    if idle is None:
        raise DoesNotApply("its modules have no stubs inside")
    if idle:
        raise ConformanceFailure(
            f"forward {', '.join(idle)}", "a quantizer there to be called, and its result to be used"
        )


def _idle_stubs(subject: PatternSubject, example: Example) -> list[str] | None:
    """Stubs inside the modules whose quantizer would do nothing, and why; ``None`` if there are no stubs at all."""
    result = subject.rewrite(with_distinct_weights(example.model), example)
    witnesses: list[tuple[fx.Node, nn.Module, str, _Witness]] = []
    for node, module, _ in placed_by(result):
        for name, stub in module.named_modules():
            if isinstance(stub, QuantStub) and not stub.enabled:
                stub.quantizer = witness = _Witness()
                witnesses.append((node, module, name, witness))
    with torch.no_grad(), watching_places(result.model) as watches:
        run(result.model, example.args)
    idle = []
    for node, module, name, witness in witnesses:
        where = f"{name} of {node.target} ({type(module).__name__})"
        if not witness.called:
            idle.append(f"never calls {where}")
        elif module in watches and name in watches[module].ignored:
            idle.append(f"calls {where} and does not use what it returns")
    return idle if witnesses else None


@for_each_example
def is_quantized(subject: PatternSubject, example: Example) -> None:
    """With the backend's default policy each point has a quantizer, or the report says why not; outputs are finite."""
    result = subject.rewrite(with_distinct_weights(example.model), example)
    points = list(points_of(result.model, patterns_by_node(result.matches)))
    if not points:
        reasons = [m.why_not_quantized for _, m, _ in placed_by(result) if isinstance(m, FusedModule)]
        raise DoesNotApply(next(filter(None, reasons), "its modules have no points for quantizers"))
    if _idle_stubs(subject, example):
        raise DoesNotApply("its modules do not use their quantizers, which is a check of its own")
    quantized = insert_qdq(result.model, result.matches, config_of(subject))
    reported = {(p.node, p.kind, p.label): p for p in quantization_report(quantized).points}
    for point in points:
        report = reported.get((point.node.name, point.kind, point.label))
        if report is None:
            raise ConformanceFailure(f"the report says nothing of {point}", "a quantizer, or a reason")
        _require_told(quantized, report)
    if not any(report.quantized for report in reported.values()):
        return
    calibrate(quantized, [example.args], progress=False)
    with torch.no_grad():
        outputs = output_tensors(run(quantized, example.args))
    if not all(bool(output.isfinite().all()) for output in outputs if output.is_floating_point()):
        raise ConformanceFailure("the quantized model gives numbers that are not finite", "finite outputs")


def _require_told(quantized: fx.GraphModule, report: PointReport) -> None:
    where = f"{report.path} {report.label}"
    if not report.quantized:
        if not report.rule.strip():
            raise ConformanceFailure(f"{where} is left in float without a reason", "a reason from the policy")
        return
    stub = quantized.get_submodule(report.stub)
    if not isinstance(stub, QuantStub) or not stub.enabled:
        raise ConformanceFailure(f"{where}: there is no quantizer at {report.stub}", "a quantizer")
    if report.kind is not PointKind.INPUT or report.stub.startswith(f"{report.path}."):
        return
    node = next(node for node in quantized.graph.nodes if node.name == report.node)
    source = node.args[report.index]
    if not isinstance(source, fx.Node) or get_module(source) is not stub:
        raise ConformanceFailure(f"{where} is read from {source}", f"the quantizer {report.stub} in front of it")
