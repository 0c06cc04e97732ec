"""A stand-in for torchvision's Swin attention, so that its conversion can be shown where torchvision is not installed.

It is written from the paper (Liu et al. 2021, section 3.2) for what the example needs: images that windows divide, no
dropout. That the conversion agrees with torchvision itself is shown by the tests of this backend.
"""

import torch
import torch.nn.functional as F
from torch import fx, nn

_MASKED = -100.0


@fx.wrap
def shifted_window_attention(
    input: torch.Tensor,
    qkv_weight: torch.Tensor,
    proj_weight: torch.Tensor,
    relative_position_bias: torch.Tensor,
    window_size: list[int],
    num_heads: int,
    shift_size: list[int],
    attention_dropout: float = 0.0,
    dropout: float = 0.0,
    qkv_bias: torch.Tensor | None = None,
    proj_bias: torch.Tensor | None = None,
    logit_scale: torch.Tensor | None = None,
    training: bool = True,  # noqa: ARG001 - the signature is torchvision's
) -> torch.Tensor:
    """Attention within windows of an image that is rolled up and left by ``shift_size``.

    Args:
        input: (B, Y, X, E); windows divide Y and X.
        qkv_weight: (3·E, E).
        proj_weight: (E, E).
        relative_position_bias: (1, H, T, T), for the T tokens of a window.
        window_size: (Wy, Wx).
        num_heads: H.
        shift_size: By how much the image is rolled.
        attention_dropout: Must be zero here.
        dropout: Must be zero here.
        qkv_bias: (3·E,).
        proj_bias: (E,).
        logit_scale: Must be ``None`` here: the temperature of version 2.
        training: Changes nothing without dropout.
    """
    assert attention_dropout == dropout == 0.0
    assert logit_scale is None
    windows, places = _windows(input, window_size, shift_size)
    batch, count, tokens, width = windows.shape
    packed = F.linear(windows, qkv_weight, qkv_bias).reshape(batch, count, tokens, 3, num_heads, width // num_heads)
    query, key, value = packed.unbind(-3)
    scores = torch.einsum("bwthd,bwshd->bwhts", query, key) / query.shape[-1] ** 0.5 + relative_position_bias
    scores = scores + _mask(places, shift_size)[:, None]
    mixed = torch.einsum("bwhts,bwshd->bwthd", scores.softmax(-1), value).flatten(-2)
    image = _joined(F.linear(mixed, proj_weight, proj_bias), window_size, input.shape)
    return image.roll((shift_size[0], shift_size[1]), (1, 2))


# By these two names the conversion knows the function.
shifted_window_attention.__module__ = "torchvision.models.swin_transformer"


def _windows(x: torch.Tensor, window: list[int], shift: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, Y, X, E) to (B, W, T, E), and for every token of a window the place that it came from, (W, T, 2)."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, x.shape[1:3]), indexing="ij"), -1)[None]

    def cut(image: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = image.shape
        rolled = image.roll((-shift[0], -shift[1]), (1, 2))
        tiles = rolled.reshape(batch, height // window[0], window[0], width // window[1], window[1], channels)
        return tiles.transpose(2, 3).reshape(batch, -1, window[0] * window[1], channels)

    return cut(x), cut(places)[0]


def _joined(tokens: torch.Tensor, window: list[int], shape: torch.Size) -> torch.Tensor:
    """(B, W, T, E) to an image of ``shape``, (B, Y, X, E)."""
    batch, height, width, _ = shape
    tiles = tokens.reshape(batch, height // window[0], width // window[1], window[0], window[1], -1)
    return tiles.transpose(2, 3).reshape(shape)


def _mask(places: torch.Tensor, shift: list[int]) -> torch.Tensor:
    """(W, T, T): tokens that rolling has brought together, from opposite sides of the image, do not see each other."""
    wrapped = torch.stack([places[..., axis] < shift[axis] for axis in (0, 1)], -1)
    apart = (wrapped[:, :, None] != wrapped[:, None]).any(-1)
    return torch.zeros(apart.shape).masked_fill(apart, _MASKED)


class WindowAttention(nn.Module):
    """Attention over E = 4 channels in windows of 2×2, shifted by one.

    Args:
        scaled: Whether the projection's weight is computed at run time, from a weight and a factor.
    """

    def __init__(self, *, scaled: bool = False) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.proj = nn.Linear(4, 4)
        self.position = nn.Parameter(torch.randn(1, 2, 4, 4) * 0.1)
        self.factor = nn.Parameter(torch.tensor(2.0)) if scaled else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, Y, X, 4) to the same."""
        weight = self.qkv.weight if self.factor is None else self.qkv.weight * self.factor
        return shifted_window_attention(
            *(x, weight, self.proj.weight, self.position, [2, 2], 2, [1, 1]),
            qkv_bias=self.qkv.bias,
            proj_bias=self.proj.bias,
            training=self.training,
        )
