"""Which inputs can be in blocks: those of matrix products with a weight, whose rows are whole blocks."""

from torch import fx, nn

from embedl_deploy.graph.arguments import argument_at
from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.modules import named_weights
from embedl_deploy.numerics.points import PointKind, QuantPoint
from embedl_deploy.quantize.reporting.causes import PointCause, WhyPoint


def why_not_in_blocks(point: QuantPoint, block: int) -> PointCause | None:
    """Why an activation cannot be quantized in blocks along its last axis, if it cannot.

    The first input of a module is what its products are over; where the shape of a tensor is known, its last axis is
    compared with theirs.

    Args:
        point: Of any kind but a weight's.
        block: Values that share a scale.
    """
    operators = [weight.operator for weight in named_weights(point.module)]
    products = [operator for operator in operators if isinstance(operator, nn.Linear)]
    source = argument_at(point.node, point.index) if point.kind is PointKind.INPUT else None
    shape = shape_of(source) if isinstance(source, fx.Node) else None
    lengths = {product.in_features for product in products}
    of_product = point.kind is PointKind.INPUT and point.index == 0 and len(products) == len(operators) > 0
    if not of_product or (shape is not None and {*shape[-1:]} != lengths):
        kind = type(point.module).__name__
        what = f"an {point.kind.value} of {kind}" if point.kind is not PointKind.INNER else f"a tensor inside {kind}"
        return PointCause(WhyPoint.BLOCKS, what)
    length = max(lengths)
    return (
        PointCause(WhyPoint.NOT_WHOLE_BLOCKS, f"{length} values are no multiple of {block}") if length % block else None
    )
