"""Decides for each point whether and how it is quantized, and by which rule.

Which points there are is decided before: patterns and modules name them (:mod:`embedl_deploy.quantize.placing.points`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import fx, nn

from embedl_deploy.graph.every_call import same_in_every_call
from embedl_deploy.graph.lookup import has_hooks
from embedl_deploy.modules import ConvertedModule
from embedl_deploy.modules.convolution import is_transposed
from embedl_deploy.numerics.config import LayerQuantConfig, QuantConfig
from embedl_deploy.numerics.points import PointKind, QuantPoint
from embedl_deploy.numerics.selectors import describe_selector, selects
from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.placing.block_inputs import why_not_in_blocks
from embedl_deploy.quantize.placing.hardware import ChosenPolicy
from embedl_deploy.quantize.reporting.causes import PointCause, WhyPoint

#: Parts of fused modules whose parameters a quantized module reads, instead of calling them.
_COMPUTED_WITH = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding, nn.modules.batchnorm._BatchNorm, ConvertedModule)


@dataclass(frozen=True)
class Decision:
    """What becomes of one point.

    Attributes:
        point: The point.
        config: How it is quantized; ``None`` if it is not.
        cause: Which rule decided.
    """

    point: QuantPoint
    config: TensorQuantConfig | None
    cause: PointCause


def decide(points: Iterable[QuantPoint], config: QuantConfig, policy: ChosenPolicy) -> list[Decision]:
    """Decide every point, in order: hooks, exceptions, overrides, constants, the policy, then the plain configuration.

    A layer with hooks stays in float, where it is called as a module, because a quantized layer computes with its
    weight directly.
    A module that is given only what is the same in every call computes a constant, which is computed beforehand:
    rounding what it computes with would gain nothing.
    Inner points follow the inputs of their module: quantized if, and only if, one of those is.

    Raises:
        PluginError: The policy of a plugin fails, or answers with something that is not a reason.
        QuantizationError: A user's own does.
    """
    points = list(points)
    constant = same_in_every_call(points[0].node.graph) if points else frozenset()
    decided = {id(p): _decide(p, config, policy, constant) for p in points if p.kind is not PointKind.INNER}
    quantized = {p.node for p in points if p.kind is PointKind.INPUT and decided[id(p)].config is not None}
    for point in points:
        if point.kind is PointKind.INNER:
            if point.node in quantized:
                decided[id(point)] = _decide(point, config, policy, constant)
            else:
                decided[id(point)] = Decision(point, None, PointCause(WhyPoint.INPUTS_IN_FLOAT))
    return [decided[id(point)] for point in points]


def _decide(point: QuantPoint, config: QuantConfig, policy: ChosenPolicy, constant: frozenset[fx.Node]) -> Decision:
    hooked = _hooked_part(point.module)
    if hooked is not None:
        return Decision(point, None, PointCause(WhyPoint.HOOKS, hooked))
    exceptions = config.exceptions
    skipped = exceptions.weight if point.kind is PointKind.WEIGHT else exceptions.stub
    for selector in skipped:
        if selects(selector, point):
            return Decision(point, None, PointCause(WhyPoint.SKIP, describe_selector(selector)))
    if point.kind is PointKind.WEIGHT:
        for cls in config.skip_weight_quant_for or ():
            if selects(cls, point):
                return Decision(point, None, PointCause(WhyPoint.SKIP_WEIGHT, describe_selector(cls)))
    overrides = config.overrides or {}
    fitting = [selector for selector in overrides if selects(selector, point)]
    if fitting:
        formats = overrides[fitting[-1]] or LayerQuantConfig(None, None)
        return _with_formats(point, formats, PointCause(WhyPoint.OVERRIDE, describe_selector(fitting[-1])))
    if point.node in constant:
        return Decision(point, None, PointCause(WhyPoint.SAME_IN_EVERY_CALL))
    meant = config.formats.weight if point.kind is PointKind.WEIGHT else config.formats.activation
    if meant is not None:
        objection = policy.objection(replace(point, precision=meant.precision.value))
        if objection is not None:
            return Decision(point, None, objection)
    return _with_formats(point, config.formats, PointCause(WhyPoint.CONFIGURATION))


def _hooked_part(module: nn.Module) -> str | None:
    """The first part with hooks, among those that a quantized module computes with and does not call."""
    for path, part in module.named_modules():
        if part is not module and isinstance(part, _COMPUTED_WITH) and has_hooks(part):
            return f"{path} ({type(part).__name__})"
    return None


def _with_activation(point: QuantPoint, config: TensorQuantConfig | None, cause: PointCause) -> Decision:
    if config is None:
        return Decision(point, None, replace(cause, without="activations"))
    problem = None if config.block_size is None else why_not_in_blocks(point, config.block_size)
    return Decision(point, config, cause) if problem is None else Decision(point, None, problem)


def _with_formats(point: QuantPoint, formats: LayerQuantConfig, cause: PointCause) -> Decision:
    if point.kind is not PointKind.WEIGHT:
        return _with_activation(point, formats.activation, cause)
    config = formats.weight
    if config is None:
        return Decision(point, None, replace(cause, without="weights"))
    operator = None if point.weight is None else point.weight.operator
    if config.block_size is not None and not isinstance(operator, nn.Linear):
        kind = "what is no Linear" if operator is None else type(operator).__name__
        return Decision(point, None, PointCause(WhyPoint.BLOCKS, kind))
    own = config.precision.format.block
    if config.block_size is not None and own is None and isinstance(operator, nn.Linear):  # a block ends with its row
        config = replace(config, block_size=min(config.block_size, operator.in_features))
    if config.per_channel and config.axis is None and is_transposed(operator):
        config = TensorQuantConfig.from_dict({**config.to_dict(), "axis": 1})
    return Decision(point, config, cause)
