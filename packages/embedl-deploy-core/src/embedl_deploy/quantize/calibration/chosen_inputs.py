"""Keeps some of the inputs that a model is called with on several ranks, chosen by their content.

The first inputs of a rank depend on how the data was split. So calls are ordered by a hash of what is in them, which is
as good as chance, and the first in that order are kept: the same calls, in the same order, however the data is split
and ordered. Calls with equal inputs, as a sampler makes that pads its shards, count once.
"""

import hashlib
from bisect import insort
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.distributed.ranks import Ranks
from embedl_deploy.graph.fingerprint import tensors_fingerprint
from embedl_deploy.modules.device import device_of
from embedl_deploy.quantize.calibration.recorded_inputs import InputRecorder, Inputs, samples_in

#: Values whose text is the same in every process.
_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))


def content_of(run: Inputs) -> str:
    """A hash of the inputs of a call: of tensors the bits, of other values their text, or their type."""
    leaves, structure = pytree.tree_flatten(run)
    tensors = ((str(i), leaf) for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor))
    others = [repr(leaf) if isinstance(leaf, _PLAIN) else type(leaf).__qualname__ for leaf in leaves]
    shown = [text for text, leaf in zip(others, leaves, strict=True) if not isinstance(leaf, torch.Tensor)]
    text = f"{structure} {shown} {tensors_fingerprint(tensors)}"
    return hashlib.sha256(text.encode()).hexdigest()


class _Call(NamedTuple):
    content: str
    samples: int
    run: Inputs


class ChosenInputs:
    """Keeps calls up to a number of samples, as :class:`InputRecorder` does, but by their content.

    Args:
        model: The model to watch.
        limit: How many samples (rows of the first tensor) to keep.
        ranks: Who has data.

    Attributes:
        keeps: Whether the inputs of the latest call may be among those that are kept: of any call.
        full: Whether no more are kept: never before the data ends.
    """

    keeps, full = True, False

    def __init__(self, model: nn.Module, limit: int, ranks: Ranks) -> None:
        self._model, self._limit, self._ranks = model, limit, ranks
        self._calls: list[_Call] = []
        self._handle = model.register_forward_pre_hook(self._record, with_kwargs=True)

    def _record(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._limit <= 0:
            return
        call = _Call(content_of((args, kwargs)), samples_in((args, kwargs)), (args, kwargs))
        if any(call.content == other.content for other in self._calls) or (
            _enough(self._calls, self._limit) and call.content > self._calls[-1].content
        ):
            return
        insort(self._calls, call._replace(run=_moved(call.run, torch.device("cpu"))), key=lambda each: each.content)
        while _enough(self._calls[:-1], self._limit):
            self._calls.pop()

    def close(self) -> None:
        """Watch no longer."""
        self._handle.remove()

    @property
    def inputs(self) -> list[Inputs]:
        """Those that are kept of all ranks, the same and in the same order on each; every rank asks for them."""
        if self._limit <= 0:
            return []
        offers = self._ranks.gather("choosing samples", [(call.content, call.samples) for call in self._calls])
        owners = {content: (rank, n) for rank, calls in reversed([*enumerate(offers)]) for content, n in calls}
        chosen: list[str] = []
        room = self._limit
        for content in sorted(owners):
            if room > 0:
                chosen.append(content)
                room -= owners[content][1]
        own = {call.content: call.run for call in self._calls}
        given = {content: own[content] for content in chosen if owners[content][0] == self._ranks.rank}
        runs: dict[str, Inputs] = {}
        for part in self._ranks.gather("exchanging samples", given):
            runs.update(part)
        device = device_of(self._model)
        return [_moved(runs[content], device) for content in chosen]


def _enough(calls: list[_Call], limit: int) -> bool:
    return sum(call.samples for call in calls) >= limit


def _moved(run: Inputs, device: torch.device | None) -> Inputs:
    """A copy, on a device, that nobody else writes to."""
    moved: Inputs = pytree.tree_map_only(torch.Tensor, lambda x: x.detach().to(device, copy=True), run)
    return moved


def recorder_for(model: nn.Module, limit: int, ranks: Ranks) -> InputRecorder | ChosenInputs:
    """What keeps inputs: the first, of a process that works alone."""
    return ChosenInputs(model, limit, ranks) if ranks.grouped else InputRecorder(model, limit)
