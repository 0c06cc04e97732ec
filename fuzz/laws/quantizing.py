"""Laws of quantized models: sane, the same from a recipe, frozen, and pickled."""

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.quantize import QuantizationRecipe, freeze, quantization_recipe, quantize
from fuzz.laws.law import Broken, law
from fuzz.laws.subject import Subject, distance, leaves, signal_to_noise

#: INT8 leaves more than this of any network of a few layers, in dB.
LEAST = 3.0
CORRECTIONS = ("equalization", "smooth_quant", "bias_correction", "learned_rounding", "awq")


def calibration(subject: Subject) -> Callable[[nn.Module], None]:
    """Data that runs a model on three batches."""

    def run(model: nn.Module) -> None:
        for seed in (0, 1, 2):
            args, kwargs = subject.inputs(seed)
            model(*args, **kwargs)

    return run


def quantized(subject: Subject, name: str) -> fx.GraphModule:
    """The network quantized, with corrections by the law's own draw."""
    rng = subject.rng(name)
    options = {option: True for option in CORRECTIONS if rng.random() < 0.25}
    return quantize(subject.result, calibration(subject), progress=False, **options)  # type: ignore[arg-type]


@law(share=0.4)
def quantize_sane(subject: Subject) -> None:
    """With and without corrections, outputs are finite and near those of the model."""
    model = quantized(subject, "quantize_sane")
    got = subject.run(model)
    if not all(bool(leaf.isfinite().all()) for leaf in leaves(got)):
        raise Broken("quantized: outputs are not finite")
    decibels = signal_to_noise(got, subject.outputs)
    if decibels < LEAST:
        raise Broken(f"quantized: {decibels:.1f} dB, where {LEAST:g} are expected")


@law(share=0.25)
def recipe(subject: Subject) -> None:
    """A recipe and a state_dict restore the quantized model, bit for bit."""
    rng = subject.rng("recipe freeze")
    model = quantized(subject, "recipe")
    model = freeze(model) if rng.random() < 0.3 else model
    text = quantization_recipe(model).to_json()
    restored = QuantizationRecipe.from_json(text).rebuild(subject.transform())
    restored.load_state_dict(model.state_dict())
    _equal(subject.run(restored), subject.run(model), "recipe + state_dict")


@law(share=0.2)
def frozen(subject: Subject) -> None:
    """A frozen model computes what the quantized one does, but for values on the edge between two numbers."""
    model = quantized(subject, "frozen")
    decibels = signal_to_noise(subject.run(freeze(model)), subject.run(model))
    if decibels < 25:
        raise Broken(f"frozen: {decibels:.1f} dB from the model that was frozen")


@law(share=0.2)
def pickled(subject: Subject) -> None:
    """torch.save and torch.load give an equal model, transformed or quantized."""
    quantizes = subject.rng("pickled").random() < 0.4
    model: Any = quantized(subject, "pickled") if quantizes else subject.result.model
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    _equal(subject.run(torch.load(file, weights_only=False)), subject.run(model), "saved and loaded")


def _equal(got: Any, wanted: Any, what: str) -> None:
    if not all(torch.equal(x, y) for x, y in zip(leaves(got), leaves(wanted), strict=True)):
        raise Broken(f"{what}: outputs are not equal, {distance(got, wanted):.3g} of the largest value apart")
