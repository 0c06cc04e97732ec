"""A grouped product as it is exported: ONNX has none, nor products with as many rows as are counted on the way.

Mixtures of experts sort their tokens by expert and multiply each run of rows by the weights of its own. In a file all
rows are multiplied by all experts' weights, and of each row the product by its own is kept: G times the arithmetic.
"""

from typing import Any

import torch

_grouped_mm: Any = torch._grouped_mm


def grouped_product(
    mat_a: torch.Tensor, mat_b: torch.Tensor, offs: torch.Tensor | None = None, *settings: Any, **named: Any
) -> torch.Tensor:
    """Rows (M, K) by (G, K, N) to (M, N), as torch's function; group g ends before row ``offs[g]``. (G, M, K) as well.

    Groups of columns, and settings, are left to torch.
    """
    if mat_b.dim() != 3 or any(value is not None for value in (*settings, *named.values())):
        return _grouped_mm(mat_a, mat_b, offs, *settings, **named)  # type: ignore[no-any-return]
    products = mat_a @ mat_b  # (G, M, N)
    if offs is None:
        return products
    rows = torch.arange(mat_a.shape[0], device=mat_a.device)
    group = (rows.unsqueeze(-1) >= offs).sum(-1)
    own = group == torch.arange(mat_b.shape[0], device=mat_a.device).unsqueeze(-1)
    return torch.where(own.unsqueeze(-1), products, torch.zeros_like(products)).sum(0)
