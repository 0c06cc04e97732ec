"""Corrects weights one after the other, each judged on what it does to its layer's outputs.

The order is that of the graph, so each sees inputs that carry the errors that remain of all before it.
"""

from collections.abc import Callable

from torch import fx, nn

from embedl_deploy.modules import NamedWeight, named_weights
from embedl_deploy.quantize.accuracy.held_back import HeldBack
from embedl_deploy.quantize.accuracy.judging import Trial
from embedl_deploy.quantize.calibration.calibrate import evaluation_mode
from embedl_deploy.quantize.calibration.paired_run import SideBySide
from embedl_deploy.quantize.calibration.progress import progress_bar
from embedl_deploy.quantize.placing.quantizer import Quantizer
from embedl_deploy.quantize.reporting.corrections import NotCorrected

#: Corrects a weight of a node's module by runs to learn from; what was done or why nothing was, and what was done
#: besides. The trial judges the module, and takes back what was done.
Correct = Callable[[fx.Node, NamedWeight, SideBySide, Trial], tuple[str | NotCorrected, str]]


def layer_by_layer(
    model: fx.GraphModule, inputs: HeldBack, correct: Correct, *, title: str, progress: bool
) -> list[tuple[str, str | NotCorrected, str]]:
    """Correct every quantized weight of a model.

    Args:
        model: Calibrated; changed in place.
        inputs: Runs of the model to learn from, and to judge by.
        correct: Corrects one weight.
        title: Of the progress bar.
        progress: Show it, on a terminal.

    Returns:
        Where, what was done or why nothing was, and what was done besides.
    """
    done = []
    rounded = inputs.rounded or inputs
    runs = SideBySide(model, inputs.learned, rounded=rounded.learned)
    judged = runs
    if inputs.judged is not inputs.learned:
        judged = SideBySide(model, inputs.judged, beside=runs, rounded=rounded.judged)
    shown = progress and inputs.ranks.first
    with evaluation_mode(model), progress_bar(title, list(model.graph.nodes), shown=shown) as nodes:
        for node in nodes:
            inputs.ranks.check()
            both = (runs,) if judged is runs else (runs, judged)
            for each in both:
                each.compute_exact(node)
            module = runs.module_of(node)
            for weight in [] if module is None else quantized_weights(module):
                trial = Trial(judged, node, inputs)
                done.append((_where(node, weight), *correct(node, weight, runs, trial)))
            for each in both:
                each.compute_quantized(node)
                each.forget(node)
    return done


def quantized_weights(module: nn.Module) -> list[NamedWeight]:
    """The weights of a module that have a quantizer, and so a float value."""
    return [weight for weight in named_weights(module) if isinstance(weight.stub.quantizer, Quantizer)]


def _where(node: fx.Node, weight: NamedWeight) -> str:
    return str(node.target) if weight.name == "weight" else f"{node.target} {weight.name}"
