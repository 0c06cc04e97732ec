"""Functions that are exported in another form, because the exporter refuses them or translates them wrongly."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from embedl_deploy.export.attention import attention
from embedl_deploy.export.grouped_product import grouped_product
from embedl_deploy.export.windows import average_pool_2d, average_pool_3d, unfold

#: Functions, and what computes the same; torch's own are called where the form is no other.
_FORMS: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: attention,
    torch.ops.aten.scaled_dot_product_attention.default: attention,
    torch._grouped_mm: grouped_product,
    torch.ops.aten._grouped_mm.default: grouped_product,
    F.avg_pool2d: average_pool_2d,
    torch.ops.aten.avg_pool2d.default: average_pool_2d,
    F.avg_pool3d: average_pool_3d,
    torch.ops.aten.avg_pool3d.default: average_pool_3d,
    F.unfold: unfold,
    torch.ops.aten.im2col.default: unfold,
}
if hasattr(F, "grouped_mm"):  # from torch 2.10 on
    _FORMS[F.grouped_mm] = grouped_product


class ExportableForms(TorchFunctionMode):
    """Within the block, what is traced in this thread calls functions in a form that is exported correctly."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or what computes the same."""
        return _FORMS.get(func, func)(*args, **(kwargs or {}))
