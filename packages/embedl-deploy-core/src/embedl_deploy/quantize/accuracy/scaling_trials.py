"""Tries scalings of channels one at a time, on samples that were held back, before any is made.

A scaling leaves what the float model computes as it is, and moves rounding errors from one place to another. In a
calibrated model without any, it is made at one place, the few scales that it changes are found again on all recorded
samples, and the error of what the place computes is compared with that before. Then everything is put back.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import fx

from embedl_deploy.quantize.accuracy.held_back import HeldBack
from embedl_deploy.quantize.accuracy.judging import layer_worse, summed_error
from embedl_deploy.quantize.accuracy.kept import Kept
from embedl_deploy.quantize.calibration.calibrate import evaluation_mode, observing, quantizers_of
from embedl_deploy.quantize.calibration.paired_run import SideBySide
from embedl_deploy.quantize.reporting.corrections import NotCorrected


class Scaling(Protocol):
    """What a correction did at places that belong together."""

    @property
    def where(self) -> list[str]:
        """The places, for the report."""

    def places(self, model: fx.GraphModule) -> tuple[list[fx.Node], list[fx.Node]]:
        """The first nodes that a copy of the model with quantizers has there, and those whose outputs must stay."""

    def tried(self, model: fx.GraphModule) -> AbstractContextManager[None]:
        """Within the block a copy of the model has the change; parts and parameters are not put back."""


@torch.no_grad()
def try_scalings(model: fx.GraphModule, scalings: Sequence[Scaling], held_back: HeldBack) -> dict[str, NotCorrected]:
    """Which scalings make the error of their place larger, each made alone.

    Args:
        model: Calibrated on the runs of ``held_back``, with none of the scalings. It is as it was afterwards.
        scalings: What is to be tried.
        held_back: Whose runs to judge by; the others have a part in the scales.

    Returns:
        Why they are to be left out, by place.
    """
    order = {node: i for i, node in enumerate(model.graph.nodes)}
    places = [(scaling, _between(*scaling.places(model), order), scaling.places(model)[1]) for scaling in scalings]
    until: dict[fx.Node, fx.Node] = {}
    for _, nodes, _ in places:
        for kept in {*nodes, *(used for node in nodes for used in node.all_input_nodes)}:
            until[kept] = max(nodes[-1], until.get(kept, nodes[-1]), key=order.__getitem__)
    rounded = held_back.rounded or held_back
    learned = SideBySide(model, held_back.learned, until=until, rounded=rounded.learned)
    judged = learned
    if held_back.judged is not held_back.learned:
        judged = SideBySide(model, held_back.judged, until=until, rounded=rounded.judged)
    both = [learned] if judged is learned else [learned, judged]
    worse = {}
    with evaluation_mode(model):
        for node in model.graph.nodes:
            held_back.ranks.check()
            for runs in both:
                runs.compute_exact(node)
            judged.compute_quantized(node)
            for scaling, nodes, outputs in places:
                if nodes[-1] is node:
                    before = sum(summed_error(judged, output) for output in outputs)
                    after = _error_of_trial(model, scaling, nodes, outputs, both)
                    cause = layer_worse(before, after, held_back)
                    worse.update({} if cause is None else dict.fromkeys(scaling.where, cause))
            for runs in both:
                runs.forget(node)
    return worse


def _between(first: list[fx.Node], last: list[fx.Node], order: dict[fx.Node, int]) -> list[fx.Node]:
    """The nodes on the ways from ``first`` to ``last``, both included, in the order of the graph."""
    after, before = set(first), set(last)
    for node in order:
        if not after.isdisjoint(node.all_input_nodes):
            after.add(node)
    for node in reversed(order):
        if node in before:
            before.update(node.all_input_nodes)
    return sorted(after & before, key=order.__getitem__)


def _error_of_trial(
    model: fx.GraphModule,
    scaling: Scaling,
    nodes: list[fx.Node],
    outputs: list[fx.Node],
    both: list[SideBySide],
) -> float:
    """The error of what a place computes on the runs to judge by, the last of ``both``, with the scaling."""
    modules = [module for node in nodes if (module := both[-1].module_of(node)) is not None]
    kept = [Kept(module) for module in modules]
    quantizers = list(dict.fromkeys(q for module in modules for q in quantizers_of(module).values()))
    with scaling.tried(model):
        with observing(model, quantizers) as observers:
            for runs in both:
                with runs.tried():
                    for node in nodes:
                        runs.compute_observed(node)
        for quantizer, observer in zip(quantizers, observers, strict=True):
            quantizer.set_grid(observer.grid())
        with both[-1].tried():
            for node in nodes:
                both[-1].compute_quantized(node)
            error = sum(summed_error(both[-1], output) for output in outputs)
    for before in kept:
        before.put_back()
    return error
