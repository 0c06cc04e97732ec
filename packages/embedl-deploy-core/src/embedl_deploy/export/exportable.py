"""Functions that are exported in another form, because the exporter refuses them or translates them wrongly."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from embedl_deploy.export.attention import attention, attention_in_steps
from embedl_deploy.export.grouped_product import grouped_product
from embedl_deploy.export.pools import (
    adaptive_average_pool_2d,
    adaptive_average_pool_3d,
    adaptive_max_pool_1d,
    adaptive_max_pool_2d,
    adaptive_max_pool_3d,
    average_pool_1d,
    average_pool_2d,
    average_pool_3d,
    max_pool_1d,
    max_pool_2d,
    max_pool_3d,
    with_indices,
)


def unfold(input: torch.Tensor, *settings: Any, **named: Any) -> torch.Tensor:
    """(N, C, H, W) to (N, C·window, L) as ``F.unfold``; (C, H, W) as a batch of one: torch.onnx takes it for one."""
    if input.dim() == 3:
        return F.unfold(input[None], *settings, **named)[0]
    return F.unfold(input, *settings, **named)


def randomized_leaky_relu(
    input: torch.Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: Any = False
) -> torch.Tensor:
    """``F.rrelu``; outside training with the mean slope, as torch computes it."""
    if training:
        return F.rrelu(input, lower, upper, training, bool(inplace))
    return F.leaky_relu(input, (lower + upper) / 2, bool(inplace))


_ATEN = torch.ops.aten
#: Functions, and what computes the same; torch's own are called where the form is the same.
_FORMS: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: attention,
    _ATEN.scaled_dot_product_attention.default: attention,
    torch._grouped_mm: grouped_product,
    _ATEN._grouped_mm.default: grouped_product,
    F.avg_pool1d: average_pool_1d,
    _ATEN.avg_pool1d.default: average_pool_1d,
    F.avg_pool2d: average_pool_2d,
    _ATEN.avg_pool2d.default: average_pool_2d,
    F.avg_pool3d: average_pool_3d,
    _ATEN.avg_pool3d.default: average_pool_3d,
    F.adaptive_avg_pool2d: adaptive_average_pool_2d,
    _ATEN.adaptive_avg_pool2d.default: adaptive_average_pool_2d,
    F.adaptive_avg_pool3d: adaptive_average_pool_3d,
    _ATEN.adaptive_avg_pool3d.default: adaptive_average_pool_3d,
    F.max_pool1d: max_pool_1d,
    F.max_pool1d_with_indices: with_indices(max_pool_1d),
    _ATEN.max_pool1d.default: max_pool_1d,
    _ATEN.max_pool1d_with_indices.default: with_indices(max_pool_1d),
    F.max_pool2d: max_pool_2d,
    F.max_pool2d_with_indices: with_indices(max_pool_2d),
    _ATEN.max_pool2d.default: max_pool_2d,
    _ATEN.max_pool2d_with_indices.default: with_indices(max_pool_2d),
    F.max_pool3d: max_pool_3d,
    F.max_pool3d_with_indices: with_indices(max_pool_3d),
    _ATEN.max_pool3d.default: max_pool_3d,
    _ATEN.max_pool3d_with_indices.default: with_indices(max_pool_3d),
    F.adaptive_max_pool1d: adaptive_max_pool_1d,
    F.adaptive_max_pool1d_with_indices: with_indices(adaptive_max_pool_1d),
    _ATEN.adaptive_max_pool1d.default: with_indices(adaptive_max_pool_1d),
    F.adaptive_max_pool2d: adaptive_max_pool_2d,
    F.adaptive_max_pool2d_with_indices: with_indices(adaptive_max_pool_2d),
    _ATEN.adaptive_max_pool2d.default: with_indices(adaptive_max_pool_2d),
    F.adaptive_max_pool3d: adaptive_max_pool_3d,
    F.adaptive_max_pool3d_with_indices: with_indices(adaptive_max_pool_3d),
    _ATEN.adaptive_max_pool3d.default: with_indices(adaptive_max_pool_3d),
    F.rrelu: randomized_leaky_relu,
    _ATEN.rrelu.default: randomized_leaky_relu,
    F.unfold: unfold,
    _ATEN.im2col.default: unfold,
}
if hasattr(F, "grouped_mm"):  # from torch 2.10 on
    _FORMS[F.grouped_mm] = grouped_product


#: What has an operator of its own from an operator set on: the set, and the form for older ones.
_IN_STEPS = {F.scaled_dot_product_attention: (23, attention_in_steps)}
_IN_STEPS[_ATEN.scaled_dot_product_attention.default] = _IN_STEPS[F.scaled_dot_product_attention]


class ExportableForms(TorchFunctionMode):
    """Within the block, what is traced in this thread calls functions in a form that is exported correctly.

    Args:
        opset: The operator set to write for.
    """

    def __init__(self, opset: int) -> None:
        super().__init__()
        self.forms = {**_FORMS, **{func: form for func, (since, form) in _IN_STEPS.items() if opset < since}}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or what computes the same."""
        return self.forms.get(func, func)(*args, **(kwargs or {}))
