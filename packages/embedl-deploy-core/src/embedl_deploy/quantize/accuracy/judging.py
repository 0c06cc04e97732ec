"""Judges corrections on samples that they did not learn from, by layer and as a whole, and takes back what harms.

Any correction can use it: a :class:`Trial` around what it does to one node's module, a :class:`Judge` around all that
it does to a model.
"""

import math
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import InputError
from embedl_deploy.modules import QuantStub
from embedl_deploy.quantize.accuracy.held_back import HeldBack
from embedl_deploy.quantize.accuracy.kept import Kept
from embedl_deploy.quantize.calibration.calibrate import evaluation_mode
from embedl_deploy.quantize.calibration.paired_run import SideBySide, emptied
from embedl_deploy.quantize.reporting.corrections import (
    THE_MODEL,
    Correction,
    NotCorrected,
    WhyNotCorrected,
    correction,
    not_corrected,
)
from embedl_deploy.verify import run_unchanged, signal_to_noise
from embedl_deploy.verify.difference import output_tensors

#: ``judged_by`` of what is judged by its layers alone, which a part of a model can be as well as the whole.
BY_LAYERS = "layers"
#: A layer's error that grows by no more than this share is the same: so little is chance, where samples are few or the
#: error is that of other tensors. What many such layers do together the whole model shows, which is allowed no loss.
_SAME = 0.01


class Trial:
    """What is done to one node's module, judged by the squared error of the node's values against the exact ones.

    Args:
        runs: Runs to judge by, in which the node's exact values have been computed.
        node: A node that calls a module.
        held_back: What the runs are, for the words.
    """

    def __init__(self, runs: SideBySide, node: fx.Node, held_back: HeldBack) -> None:
        self._runs, self._node, self._held_back = runs, node, held_back
        self._kept = Kept(_module(runs, node))
        self.before = squared_error(runs, node)

    def take_back_if_worse(self) -> NotCorrected | None:
        """Put the module back if the error is larger than before; says so then.

        The module may be changed and judged again, always against what it was first.

        Raises:
            QuantizationError: Parameters were written into.
        """
        worse = layer_worse(self.before, squared_error(self._runs, self._node), self._held_back)
        if worse is None:
            self._kept.require_unwritten()
        else:
            self._kept.put_back()
        return worse


def layer_worse(before: float, after: float, held_back: HeldBack) -> NotCorrected | None:
    """That a layer's error is larger than before, or ``None`` if it is not."""
    if after <= before * (1 + _SAME):  # false for NaN
        return None
    ratio = after / before if before > 0 else math.inf
    return not_corrected(WhyNotCorrected.LAYER_WORSE, samples=str(held_back), ratio=f"{ratio:.3g}")


def _module(runs: SideBySide, node: fx.Node) -> nn.Module:
    module = runs.module_of(node)
    assert module is not None  # the caller has looked
    return module


def squared_error(runs: SideBySide, node: fx.Node) -> float:
    """Computes a node's quantized values, for :func:`summed_error`."""
    runs.compute_quantized(node)
    return summed_error(runs, node)


def summed_error(runs: SideBySide, node: fx.Node) -> float:
    """Σ (y' − y)² over a node's values, y exact and y' quantized, in all runs.

    Infinities and NaN that both have are no error.
    """
    total = 0.0
    for exact, quantized in runs.values(node):
        for x, y in zip(output_tensors(exact), output_tensors(quantized), strict=True):
            wide = torch.complex128 if x.is_complex() else torch.float64
            x, y = x.to(wide), y.to(wide)
            apart = torch.where((x == y) | (x.isnan() & y.isnan()), 0.0, y - x)
            total += float(apart.abs().square().sum())
    return total


class Score:
    """The SQNR of a quantized model's outputs against the float ones, and of what is made of it.

    Args:
        model: Calibrated, before the correction. It is not kept.
        held_back: Whose runs to judge by.

    Attributes:
        before: Of the model, in dB; or why it cannot be told.
    """

    def __init__(self, model: fx.GraphModule, held_back: HeldBack) -> None:
        self._held_back = held_back
        with emptied(*(stub for stub in model.modules() if isinstance(stub, QuantStub))):
            self._exact = self._outputs(model)
        self.before = self.sqnr(model)

    def _outputs(self, model: fx.GraphModule) -> list[Any]:
        with evaluation_mode(model):
            return [run_unchanged(model, *run) for run in self._held_back.judged]

    def sqnr(self, model: fx.GraphModule) -> float | InputError:
        """Of a corrected model, calibrated, in dB; or why it cannot be told."""
        try:
            return signal_to_noise(self._exact, self._outputs(model))
        except InputError as error:  # outputs without tensors, or whose shapes depend on their values
            return error

    def told(self, what: str, after: float | InputError) -> tuple[Correction, NotCorrected | None]:
        """What the report says of a corrected model, and that its SQNR is lower than before, if it is.

        Args:
            what: The correction's name.
            after: What :meth:`sqnr` gave.
        """
        before = self.before
        if isinstance(after, InputError) or isinstance(before, InputError):
            reason = after if isinstance(after, InputError) else before
            return correction(what, THE_MODEL, f"judged by its layers only, on {self._held_back}. {reason}"), None
        if after >= before:  # false for NaN
            told = f"{after:.1f} dB on {self._held_back}, {before:.1f} dB without"
            return correction(what, THE_MODEL, told), None
        worse = self.worse(after, before, others=" with all others")
        return correction(what, THE_MODEL, worse), worse

    def worse(self, after: float, before: float, *, others: str = "") -> NotCorrected:
        """That an SQNR is lower than without a correction; ``others`` says with what it was taken back."""
        return not_corrected(
            WhyNotCorrected.MODEL_WORSE,
            samples=str(self._held_back),
            after=f"{after:.2f}",
            before=f"{before:.2f}",
            others=others,
        )


class Judge:
    """All that is done to a model, judged by its :class:`Score`.

    Args:
        model: Calibrated, before the correction.
        held_back: Whose runs to judge by.
    """

    def __init__(self, model: fx.GraphModule, held_back: HeldBack) -> None:
        self._model = model
        self._kept = Kept(model)
        self._score = Score(model, held_back)

    def take_back_if_worse(self, what: str) -> tuple[Correction, NotCorrected | None]:
        """Put the model back if its SQNR is lower than before; it may be changed and judged again then.

        Args:
            what: The correction's name.

        Returns:
            What the report says of the model, and why everything was taken back, if it was.

        Raises:
            QuantizationError: Parameters were written into.
        """
        whole, worse = self._score.told(what, self._score.sqnr(self._model))
        if worse is None:
            self._kept.require_unwritten()
        else:
            self._kept.put_back()
        return whole, worse
