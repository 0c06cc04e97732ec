"""The options for quantization and calibration data."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from torch import fx

from embedl_deploy import TransformationResult
from embedl_deploy.cli.data import Batches, array_batches
from embedl_deploy.cli.options import Rewrites, Subject, with_options
from embedl_deploy.cli.output import Output
from embedl_deploy.cli.parameters import numbers, size
from embedl_deploy.cli.paths import InputFile
from embedl_deploy.errors import InputError
from embedl_deploy.numerics import CalibrationMethod, ModulesToSkip, Precision, QuantConfig, TensorQuantConfig
from embedl_deploy.pipeline import BACKEND

PRECISIONS = tuple(precision.name.lower() for precision in Precision)
#: The range of each call, in UINT8, instead of a calibrated one.
DYNAMIC = "dynamic"
METHODS = (*(method.value for method in CalibrationMethod), DYNAMIC)


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The calibration data, as ``data``: a function that opens it for a model and its example inputs."""

    @functools.wraps(function)
    def run(
        *,
        data: Path,
        batch_size: int | None,
        samples: int | None,
        resize: int | None,
        crop: tuple[int, int] | None,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        **rest: Any,
    ) -> Any:
        def opened(subject: Subject) -> Batches:
            tensors = (*subject.needed_inputs("Quantizing"), *subject.kwargs.values())
            samples_each = batch_size or (tensors[0].shape[0] if tensors[0].dim() else 1)
            if not data.is_dir():
                return array_batches(data, subject.model, samples_each, samples)
            from embedl_deploy.cli.images import IMAGENET_MEAN, IMAGENET_STD, Preparation, image_batches

            if len(tensors) != 1:
                raise InputError(f"{str(data)!r} is a folder of images, but the model has {len(tensors)} inputs.")
            preparation = Preparation(resize, crop, mean or IMAGENET_MEAN, std or IMAGENET_STD)
            return image_batches(data, tensors[0], preparation, samples_each, samples)

        return function(data=opened, **rest)

    return with_options(
        run,
        click.option(
            "--data",
            type=InputFile(),
            required=True,
            metavar="PATH",
            help="Calibration data: an .npz or .npy file whose first dimension counts samples, or a folder of images.",
        ),
        click.option(
            "--batch-size", type=click.IntRange(1), metavar="N", help="By default that of the example inputs."
        ),
        click.option(
            "--samples", type=click.IntRange(1), metavar="N", help="Largest number of samples; by default all."
        ),
        click.option(
            "--resize", type=click.IntRange(1), metavar="N", help="Images: the shorter side; 256/224 of the crop."
        ),
        click.option("--crop", callback=size, metavar="H[,W]", help="Images: from the middle; that of the input."),
        click.option("--mean", callback=numbers, metavar="R,G,B", help="Images, of values up to 1: ImageNet's mean."),
        click.option("--std", callback=numbers, metavar="R,G,B", help="Images, of values up to 1: ImageNet's."),
    )


def transform_for_data(
    output: Output,
    subject: Callable[[], Subject],
    rewrites: Rewrites,
    data: Callable[[Subject], Batches],
    why: str = "Quantizing",
) -> tuple[Subject, Batches, TransformationResult]:
    """Load a model, transform it, and see that it takes the data.

    Args:
        output: Where progress is shown.
        subject: Loads the model.
        rewrites: How it is transformed.
        data: Opens the data.
        why: What needs example inputs, for the message where there are none.
    """
    with output.working("transforming"):
        loaded = subject()
        loaded.needed_inputs(why)
        batches = data(loaded)
        result = rewrites.transform(loaded)
        batches.check(result.model)
    return loaded, batches, result


@dataclass(frozen=True)
class Quantization:
    """How a model is quantized.

    Attributes:
        policy: Name of a policy of the backend; ``None`` for the default.
        decisions: A file of ``tune``, which takes the place of a policy.
        precision: Name of a number format; ``None`` for that of the hardware.
        weights_only: Whether activations stay in float.
        block_size: Inputs of a weight that share a scale; ``None`` for a scale for each channel.
        method: How activations get ranges, or ``"dynamic"`` for those of each call; ``None`` for that of the hardware.
        skip: Globs of modules that stay in float.
        corrections: Arguments of :func:`quantize` that keep accuracy.
    """

    policy: str | None
    decisions: Path | None
    precision: str | None
    weights_only: bool
    block_size: int | None
    method: str | None
    skip: Sequence[str]
    corrections: dict[str, Any]

    def quantized(self, result: TransformationResult, batches: Batches) -> fx.GraphModule:
        """Quantize and calibrate a transformed model."""
        from embedl_deploy.quantize import quantize

        return quantize(result, batches, self.config(result), **self.corrections)

    def config(self, result: TransformationResult) -> QuantConfig:
        """The configuration for a transformed model: what was asked for, and the hardware's formats for the rest."""
        from embedl_deploy.quantize import default_config
        from embedl_deploy.tuning import TunedPolicy

        hardware = default_config(result.model.meta.get(BACKEND))
        config = _formats(hardware, self.precision, self.method, self.weights_only, self.block_size)
        skipped = {part: frozenset({*own, *self.skip}) for part, own in vars(config.exceptions).items()}
        config = replace(config, skip=ModulesToSkip(**skipped), policy=self.policy or config.policy)
        return config if self.decisions is None else TunedPolicy.load(self.decisions).config(config)


def quantization_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How a model is quantized, as ``quantization``."""

    @functools.wraps(function)
    def run(
        *,
        policy: str | None,
        decisions: Path | None,
        precision: str | None,
        weights_only: bool,
        block_size: int | None,
        method: str | None,
        skip: Sequence[str],
        **rest: Any,
    ) -> Any:
        names = ("centering", "equalization", "smooth_quant", "awq", "bias_correction", "learned_rounding")
        corrections = {name: rest.pop(name) for name in names}
        how = Quantization(policy, decisions, precision, weights_only, block_size, method, skip, corrections)
        return function(quantization=how, **rest)

    return with_options(
        run,
        click.option("--policy", metavar="NAME", help="Where the hardware wants no quantizers; see `backends -v`."),
        click.option(
            "--decisions", type=InputFile(), metavar="FILE", help="Quantize where `tune` decided; instead of a policy."
        ),
        click.option(
            "--precision", type=click.Choice(PRECISIONS), help="Number format; by default the hardware's, or int8."
        ),
        click.option("--weights-only", is_flag=True, help="Leave activations in float, as int4 needs it."),
        click.option(
            "--block-size", type=int, metavar="N", help="A scale for each N inputs of a weight, not each channel."
        ),
        click.option(
            "--method",
            type=click.Choice(METHODS),
            help="How activations get ranges; by default the hardware's, or minmax.",
        ),
        click.option("--skip", multiple=True, metavar="GLOB", help="Modules to leave in float, by path. Repeatable."),
        click.option("--centering", is_flag=True, help="Use all numbers of a format for tensors with one sign."),
        click.option("--equalization", is_flag=True, help="Even out the weights of neighbouring convolutions."),
        click.option("--smooth-quant", is_flag=True, help="Move part of the range of activations into weights."),
        click.option("--awq", is_flag=True, help="Scale and clip weights whose inputs stay in float; for few bits."),
        click.option("--bias-correction", is_flag=True, help="Correct the mean of every layer's output."),
        click.option(
            "--learned-rounding", is_flag=True, help="Choose each weight by what it does to the layer's output."
        ),
    )


def _formats(
    hardware: QuantConfig, precision: str | None, method: str | None, weights_only: bool, block_size: int | None
) -> QuantConfig:
    """The hardware's formats, with what was asked for in their place."""
    activation, weight = hardware.formats.activation, hardware.formats.weight
    if precision is not None:
        grid = Precision[precision.upper()]
        activation = None if activation is None or weights_only else activation.in_precision(grid)
        weight = None if weight is None else weight.in_precision(grid)
    if method == DYNAMIC:
        activation = TensorQuantConfig(Precision.UINT8, symmetric=False, dynamic=True)
    elif method is not None and activation is not None:
        activation = replace(activation, calibration_method=CalibrationMethod(method))
    if block_size is not None and weight is not None:
        weight = replace(weight, per_channel=False, axis=None, block_size=block_size)
    overrides = hardware.overrides if precision is None and block_size is None else {}
    return replace(hardware, activation=None if weights_only else activation, weight=weight, overrides=overrides)
