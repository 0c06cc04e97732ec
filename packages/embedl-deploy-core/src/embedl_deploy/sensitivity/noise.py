"""Estimates the output noise that each layer's error causes, for all layers in one pass.

A layer that is quantized alone adds an error δ to its result t, and J·δ to the outputs y, with J = ∂y/∂t, as long as δ
is small. The energy of that is found by random probes. For v of mean 0 and covariance M,

    E (vᵀ·J·δ)² = (J·δ)ᵀ·M·(J·δ),    and vᵀ·J = ∂(vᵀ·y)/∂t

is what one backward pass gives for all layers at once (Hutchinson 1989). M is the metric's. Each sample is a probe of
its own, unless it has an effect on the outputs of others; then the whole batch is one. Errors of different layers are
taken to be independent, so that their energies add up.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.graph.inputs import BoundInterpreter, bind_inputs, tensors_in
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.sensitivity.layers import Layer, OwnQuantizers
from embedl_deploy.sensitivity.metrics import Metric
from embedl_deploy.verify.difference import float_tensors

#: Parts of a layer that are quantized alone.
PARTS = ("both", "weight", "activation")


@dataclass
class Noise:
    """Energies, summed over all samples that were seen.

    Attributes:
        layers: By a layer's node and by part, of the outputs' error with nothing else quantized.
        total: With everything quantized, measured.
        scale: What they are compared with.
        batches: How many batches were seen.
        probes: How many independent probes there were: samples, or batches whose samples mix, times backward
            passes.
    """

    layers: dict[str, dict[str, float]] = field(default_factory=dict)
    total: float = 0.0
    scale: float = 0.0
    batches: int = 0
    probes: int = 0


@dataclass(frozen=True)
class _Result:
    """What a layer gives, and by how much it is off.

    Attributes:
        layer: The layer.
        exact: Its tensors in floating point.
        errors: By part, the error of each of them.
    """

    layer: Layer
    exact: list[torch.Tensor]
    errors: dict[str, list[torch.Tensor]]


class _Walk(BoundInterpreter):
    """Runs a graph on exact values and keeps, of each layer, its result and the errors that its quantizers make."""

    def __init__(self, model: fx.GraphModule, layers: Sequence[Layer], own: OwnQuantizers) -> None:
        super().__init__(model)
        self.layers = {layer.node: layer for layer in layers}
        self.own = own
        self.found: list[_Result] = []

    def run_node(self, n: fx.Node) -> Any:
        """The value of a node; of a layer a copy, since what comes next may write into it."""
        layer = self.layers.get(n)
        if layer is None:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        value = self.own.result(layer, args, kwargs, ())
        exact = float_tensors(value)
        for tensor in exact:
            if not tensor.requires_grad:
                tensor.requires_grad_()
        with torch.no_grad():
            parts = dict(zip(PARTS, (layer.points, layer.weights, layer.activations), strict=True))
            errors = {part: self._errors(layer, args, kwargs, points, exact) for part, points in parts.items()}
        self.found.append(_Result(layer, exact, errors))
        return pytree.tree_map_only(torch.Tensor, torch.Tensor.clone, value)

    def _errors(
        self, layer: Layer, args: Any, kwargs: Any, points: tuple[PointReport, ...], exact: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        found = float_tensors(self.own.result(layer, args, kwargs, points))
        return [y - x for x, y in zip(exact, found, strict=True)]


def add_batch(
    noise: Noise,
    model: fx.GraphModule,
    layers: Sequence[Layer],
    call: tuple[tuple[Any, ...], dict[str, Any]],
    metric: Metric,
    generator: torch.Generator,
    probes: int,
) -> None:
    """Measure one batch and add it to what was measured before.

    Args:
        noise: Changed.
        model: A calibrated model in evaluation mode. Its state stays.
        layers: Its layers.
        call: The batch, as the model is called.
        metric: Of the outputs.
        generator: For the probes.
        probes: How many backward passes.

    Raises:
        InputError: An output is NaN or +∞, or −∞ in other places with quantizers; a gradient is not finite.
        QuantizationError: No layer has a gradient.
    """
    own = OwnQuantizers(model)
    with torch.no_grad():
        quantized = float_tensors(model(*call[0], **call[1]))
    with torch.inference_mode(False), own.taken_out(), _without_gradients_of(model), torch.enable_grad():
        call = pytree.tree_map_only(torch.Tensor, lambda x: x.clone() if x.is_inference() else x, call)
        walk = _Walk(model, layers, own)
        exact = float_tensors(walk.run(*bind_inputs(model, *call), enable_io_processing=False))
        _require_measurable(exact, quantized, metric)
        if not any(y.requires_grad for y in exact):
            raise QuantizationError(
                "Gradients reach no quantized layer from the outputs, as after argmax or rounding, so no layer can "
                "be measured with them. Pass evaluate=..., or a model that ends before that."
            )
        noise.scale += metric.scale([y.detach() for y in exact])
        noise.total += metric.energy([y.detach() for y in exact], quantized)
        samples = _batch_size(call)
        results = [tensor for found in walk.found for tensor in found.exact]
        alone = samples > 1 and _is_alone(exact, results, samples, metric)
        for probe in range(probes):
            loss = sum(((metric.probe(y, generator) * y).sum() for y in exact if y.requires_grad), torch.zeros(()))
            last = probe == probes - 1
            gradients = iter(torch.autograd.grad(loss, results, allow_unused=True, retain_graph=not last))
            for found in walk.found:
                of_layer = noise.layers.setdefault(found.layer.node.name, dict.fromkeys(PARTS, 0.0))
                own_gradients = [next(gradients) for _ in found.exact]
                for part, errors in found.errors.items():
                    pairs = zip(own_gradients, errors, strict=True)
                    products = [gradient * error for gradient, error in pairs if gradient is not None]
                    energy = _energy(products, samples if alone else 1)
                    if not math.isfinite(energy):
                        raise InputError(
                            f"the gradient or the error at {found.layer.path!r} is not finite, so its noise cannot be "
                            "measured. Pass evaluate=..., or leave out inputs that make it so."
                        )
                    of_layer[part] += energy / probes
    noise.batches += 1
    noise.probes += probes * (samples if alone else 1)


def _is_alone(exact: Sequence[torch.Tensor], results: Sequence[torch.Tensor], samples: int, metric: Metric) -> bool:
    """Whether the first dimension of all results is one of samples, each of which only its own output depends on."""
    if any(not t.dim() or t.shape[0] % samples for t in results) or any(
        not y.dim() or y.shape[0] != samples for y in exact
    ):
        return False
    generator = torch.Generator().manual_seed(0)
    last = sum((metric.probe(y, generator) * y)[-1].sum() for y in exact if y.requires_grad)
    gradients = torch.autograd.grad(last, results, allow_unused=True, retain_graph=True)  # type: ignore[arg-type]  # an output has one
    return not any(bool(g.reshape(samples, -1)[:-1].any()) for g in gradients if g is not None and g.numel())


def _energy(products: Sequence[torch.Tensor], samples: int) -> float:
    """Σ over samples of the square of the sum of what belongs to one; of all at once where that cannot be told."""
    if samples and all(product.dim() and product.shape[0] % samples == 0 for product in products):
        sums = [product.reshape(samples, -1).sum(1, dtype=torch.float64) for product in products]
    else:
        sums = [product.sum(dtype=torch.float64).reshape(1) for product in products]
    return float(torch.stack(sums).sum(0).square().sum()) if sums else 0.0


def _require_measurable(exact: Sequence[torch.Tensor], quantized: Sequence[torch.Tensor], metric: Metric) -> None:
    """Refuse a batch of which an output has no noise: NaN, +∞, −∞ with or without quantizers alone, a mask of all."""
    for y, noisy in zip(exact, quantized, strict=True):
        masked = y.isneginf()
        if any(bool(z.isnan().any() or z.isposinf().any()) for z in (y, noisy)):
            what, why = "is NaN or infinite", "Leave out inputs that make it so."
        elif not torch.equal(masked, noisy.isneginf()):
            what, why = (
                "is -inf in other places when it is quantized",
                "Pass evaluate=..., or a model that ends before.",
            )
        elif metric.name == "kl" and y.dim() and bool(masked.all(-1).any()):
            what, why = "is -inf along a whole last axis, which has no softmax", "Leave out inputs that make it so."
        else:
            continue
        raise InputError(f"an output of the model {what}, so its noise cannot be measured. {why}")


def _batch_size(call: tuple[tuple[Any, ...], dict[str, Any]]) -> int:
    first = next((t for t in tensors_in(call) if t.dim()), None)
    return 1 if first is None else int(first.shape[0])


@contextmanager
def _without_gradients_of(model: nn.Module) -> Iterator[None]:
    """Within the block a backward pass computes no gradients of parameters, which nobody asks for."""
    asked = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_()
