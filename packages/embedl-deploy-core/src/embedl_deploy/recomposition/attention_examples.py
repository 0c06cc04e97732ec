"""Examples of attention written out in different ways, and near misses."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.patterns.examples import Example

Forward = Callable[["Written", torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Written(nn.Module):
    """A function of queries, keys and values of two heads, five tokens and four channels.

    Args:
        function: Computes the output from the module, whose parts it may use, and the three.
        **parts: Modules, parameters and buffers of the module.
    """

    drop: nn.Dropout
    across: nn.Linear
    bias: torch.Tensor
    temperature: torch.Tensor
    seen: torch.Tensor
    later: torch.Tensor

    def __init__(self, function: Forward, **parts: nn.Module | torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Three of (B, 2, 5, 4)."""
        return self.function(self, q, k, v)

    def dropped(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights after dropout."""
        dropped: torch.Tensor = self.drop(weights)
        return dropped

    def mixed(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, 2, 5, 5), each made of those of both heads."""
        mixed: torch.Tensor = self.across(scores.permute(0, 2, 3, 1))
        return mixed.permute(0, 3, 1, 2)


def _plain(_: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) * 0.5, dim=-1) @ v


def _biased(m: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return m.dropped(((q * 0.5) @ k.transpose(-2, -1) + m.bias).softmax(dim=-1)) @ v


def _causal(m: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    scores = torch.matmul(q, k.permute(0, 1, 3, 2)).div(2.0).masked_fill(m.later, float("-inf"))
    return torch.matmul(F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype), v)


def _filled(m: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.where(m.seen, q @ k.mT, -1e4).softmax(-1) @ v


def _cosine(m: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
    return (scores * m.temperature.exp() + m.bias).softmax(-1) @ v


def _capped(m: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (torch.tanh(q @ k.transpose(2, 3) / 2.0 / 5.0) * 5.0 + m.bias).softmax(-1) @ v


def _flattened(m: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    scores = torch.bmm(q, k.transpose(-2, -1))
    scores = (scores.view(-1, 2, 5, 5) + m.bias).view(-1, 5, 5)
    return torch.bmm(scores.softmax(-1), v)


def _tokens_first(_: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.einsum("bhij,bjhd->bihd", torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1), v)


def _batched(m: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    scores = torch.baddbmm(m.bias, q, k.transpose(1, 2), beta=0.5, alpha=0.25)
    return torch.bmm(scores.softmax(-1), v)


def _sloped(m: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    batch, heads, rows, _ = q.shape
    columns = k.shape[2]
    slopes = m.bias.expand(batch, heads, 1, columns).reshape(batch * heads, 1, columns)
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    scores = torch.baddbmm(slopes, q, k.transpose(1, 2)).view(batch, heads, rows, columns)
    weights = scores.softmax(-1).view(batch * heads, rows, columns)
    return torch.bmm(weights, v).view(batch, heads, rows, -1)


def _across_heads(m: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return m.mixed(q @ k.transpose(-2, -1)).softmax(-1) @ v


def _read_twice(_: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    weights = (q @ k.transpose(-2, -1)).softmax(-1)
    return (weights @ v) * weights.sum()


def _over_queries(_: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (q @ k.transpose(-2, -1)).softmax(-2) @ v


def _for_each_channel(m: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (q @ k.transpose(-2, -1) * m.bias).softmax(-1) @ v


def _weighed_and_added(
    _: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, alpha: float = 1.0, beta: float = 0.0
) -> torch.Tensor:
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    return torch.baddbmm(v, torch.bmm(q, k.transpose(1, 2)).softmax(-1), v, alpha=alpha, beta=beta)


def _without_queries(m: Written, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (q.sum(-1, keepdim=True) * k.mean() + m.bias).softmax(-1) @ v


def _example(function: Forward, note: str = "", **parts: nn.Module | torch.Tensor) -> Example:
    return Example(Written(function, **parts), tuple(torch.randn(3, 2, 2, 5, 4)), note)


def _bias(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, 5, 5))


def examples() -> list[Example]:
    """Where it matches."""
    seen, temperature = torch.ones(5, 5).tril().bool(), nn.Parameter(torch.rand(2, 1, 1) + 0.5)
    return [
        _example(_plain),
        _example(_biased, "a bias for relative positions, and dropout", bias=_bias(2), drop=nn.Dropout(0.1)),
        _example(_causal, "a mask, and a softmax in float32", later=~seen),
        _example(_filled, "scores that a number replaces", seen=seen),
        _example(_cosine, "cosines, with a temperature for each head", bias=_bias(2), temperature=temperature),
        _example(_capped, "capped scores", bias=_bias(2)),
        _example(_flattened, "heads that are seen apart while a bias is added", bias=_bias(2)),
        _example(_tokens_first, "einsum, heads after tokens"),
        _example(_batched, "baddbmm", bias=_bias(1)),
        _example(_sloped, "a slope for each head, as ALiBi has it", bias=nn.Parameter(torch.randn(2, 1, 5))),
    ]


def near_misses() -> list[Example]:
    """Where it does not."""
    return [
        _example(_across_heads, "a product across the heads", across=nn.Linear(2, 2)),
        _example(_read_twice, "weights that are used elsewhere"),
        _example(_over_queries, "a softmax over the queries"),
        _example(_for_each_channel, "a factor for each key", bias=_bias(2)),
        _example(_without_queries, "scores that are not a product", bias=_bias(2)),
        _example(partial(_weighed_and_added, beta=1.0), "the result is added to something"),
        _example(partial(_weighed_and_added, alpha=0.5), "the result is scaled"),
    ]
