"""Attention within shifted windows (Swin, Liu et al. 2021; V2, Liu et al. 2022) in parts.

    x ─▶ SwinWindowPartition ─▶ MHAInProjection ─▶ SwinAttention ─▶ Linear ─▶ SwinWindowReverse
                     └─ mask ───────────────────────────▲                            ▲
    x ────────────────────────────────────────────────────────── its size ───────────┘

Every part is a function of its inputs: the reverse takes the padded, shifted layout from the size of ``x``, and the
mask is an output of the partition. No state is shared between them, so threads may run the same model.

Axes: B batch, (Y, X) image, (Wy, Wx) window, W = number of windows, T = Wy·Wx tokens of a window, E embedding, H heads.
"""

import math

import torch
import torch.nn.functional as F

from embedl_deploy.modules.attention import join_heads
from embedl_deploy.modules.base import ConvertedModule, FusedModule
from embedl_deploy.modules.slots import QuantStub
from embedl_deploy.validation.checked import checked

Pair = tuple[int, int]

_MASKED = -100.0  # what torchvision adds to the score of two tokens that are not neighbours
_LARGEST_LOG_SCALE = math.log(100.0)  # Swin V2, section 3.3: the temperature is not below 0.01


class _Windows(ConvertedModule):
    """Windows of a fixed size over an image that is padded to a multiple of it and shifted.

    Args:
        window_size: (Wy, Wx).
        shift_size: By how much the image is rolled up and left; (0, 0) for plain windows.
    """

    @checked
    def __init__(self, window_size: Pair, shift_size: Pair) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift_size = shift_size

    def layout(self, height: int, width: int) -> tuple[Pair, Pair]:
        """Padded size and effective shift: a side that fits into one window is not shifted."""
        padded_h = height + -height % self.window_size[0]
        padded_w = width + -width % self.window_size[1]
        shift_h = 0 if self.window_size[0] >= padded_h else self.shift_size[0]
        shift_w = 0 if self.window_size[1] >= padded_w else self.shift_size[1]
        return (padded_h, padded_w), (shift_h, shift_w)

    def extra_repr(self) -> str:
        """Window and shift."""
        return f"window_size={self.window_size}, shift_size={self.shift_size}"


class SwinWindowPartition(_Windows):
    """Pad, roll, and cut into windows."""

    @property
    def shifted(self) -> bool:
        """Whether a mask is made."""
        return sum(self.shift_size) > 0

    @checked
    def pads(self, x: torch.Tensor) -> bool:
        """Whether windows do not divide (B, Y, X, E), so that zeros are added below and on the right."""
        return self.layout(x.shape[1], x.shape[2])[0] != (x.shape[1], x.shape[2])

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """(B, Y, X, E) to (B·W, T, E) and, if shifted, the mask of (W, T, T) to add to the scores."""
        _, height, width, _ = x.shape
        (padded_h, padded_w), shift = self.layout(height, width)
        padded = F.pad(x, (0, 0, 0, padded_w - width, 0, padded_h - height)) if self.pads(x) else x
        if sum(shift) > 0:
            padded = torch.roll(padded, shifts=(-shift[0], -shift[1]), dims=(1, 2))
        windows = self._cut(padded)
        return (windows, self._mask(x, (padded_h, padded_w), shift)) if self.shifted else windows

    def _cut(self, x: torch.Tensor) -> torch.Tensor:
        rows, columns = self.window_size
        batch, height, width, channels = x.shape
        tiles = x.reshape(batch, height // rows, rows, width // columns, columns, channels)
        return tiles.transpose(2, 3).reshape(-1, rows * columns, channels)

    def _mask(self, x: torch.Tensor, padded: Pair, shift: Pair) -> torch.Tensor:
        """Tokens that come from different sides of the image, after rolling, do not attend to each other."""
        rows, columns = (
            (places >= size - window).to(x.dtype) + (places >= size - by).to(x.dtype)
            for size, window, by in zip(padded, self.window_size, shift, strict=True)
            for places in [torch.arange(size, device=x.device)]
        )
        region = (rows[:, None] * 3 + columns[None, :])[None, :, :, None]
        tokens = self._cut(region).squeeze(-1)
        apart = tokens[:, None, :] != tokens[:, :, None]
        mask = torch.zeros_like(apart, dtype=x.dtype).masked_fill(apart, _MASKED)
        return mask if sum(shift) > 0 else torch.zeros_like(mask)


class SwinWindowReverse(_Windows):
    """Put windows together, roll back, and cut the padding off."""

    def forward(self, windows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """(B·W, T, E), and the partition's input (B, Y, X, ·) for its size, to (B, Y, X, E)."""
        batch, height, width, _ = x.shape
        (padded_h, padded_w), shift = self.layout(height, width)
        rows, columns = self.window_size
        tiles = windows.reshape(batch, padded_h // rows, padded_w // columns, rows, columns, -1)
        image = tiles.transpose(2, 3).reshape(batch, padded_h, padded_w, -1)
        if sum(shift) > 0:
            image = torch.roll(image, shifts=shift, dims=(1, 2))
        return image[:, :height, :width, :].contiguous()


class SwinAttention(ConvertedModule):
    """Attention with a bias for relative positions: by scaled dot product, or by cosine if a logit scale is given.

    Args:
        dropout: Probability that an attention weight is dropped in training mode.
    """

    @checked
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout

    @checked
    def weights(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        bias: torch.Tensor,
        mask: torch.Tensor | None,
        logit_scale: torch.Tensor | None,
    ) -> torch.Tensor:
        """Softmax of the biased and masked scores, (B·W, H, T, T)."""
        if logit_scale is None:
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        else:
            cosine = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
            scores = cosine * logit_scale.clamp(max=_LARGEST_LOG_SCALE).exp()
        scores = scores + bias
        if mask is not None:
            windows = scores.reshape(-1, mask.shape[0], *scores.shape[1:])
            scores = (windows + mask[None, :, None]).flatten(0, 1)
        return torch.softmax(scores, dim=-1)

    @checked
    def attend(self, weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Weigh the values and join the heads: (B·W, T, E)."""
        return join_heads(F.dropout(weights, self.dropout, self.training) @ value)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor,
        mask: torch.Tensor | None = None,
        logit_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Three of (B·W, H, T, D), bias (1, H, T, T), mask (W, T, T), logit scale (H, 1, 1), to (B·W, T, E)."""
        return self.attend(self.weights(query, key, bias, mask, logit_scale), value)

    def extra_repr(self) -> str:
        """The dropout."""
        return f"dropout={self.dropout}"


class FusedSwinAttention(FusedModule):
    """``SwinAttention``.

    Attributes:
        softmax_quant: Place for a quantizer of the attention weights, whose range [0, 1] is known beforehand.
    """

    inputs_to_quantize = frozenset()

    @checked
    def __init__(self, attention: SwinAttention) -> None:
        super().__init__()
        self.attention = attention
        self.softmax_quant = QuantStub(amax=1.0)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor,
        mask: torch.Tensor | None = None,
        logit_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As :meth:`SwinAttention.forward`."""
        if not self.softmax_quant.enabled:
            return self.attention(query, key, value, bias, mask, logit_scale)  # type: ignore[no-any-return]
        weights = self.attention.weights(query, key, bias, mask, logit_scale)
        return self.attention.attend(self.softmax_quant(weights), value)
