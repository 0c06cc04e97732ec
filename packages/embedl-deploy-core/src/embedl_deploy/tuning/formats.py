"""The number formats that a search chooses from, beside those of the configuration."""

from collections.abc import Collection
from dataclasses import replace

from embedl_deploy.backend import Backend
from embedl_deploy.errors import InputError
from embedl_deploy.numerics.config import QuantConfig
from embedl_deploy.numerics.formats import Precision


def other_formats(
    config: QuantConfig, asked: Collection[Precision] | None, backend: Backend, target: str
) -> dict[str, QuantConfig]:
    """A configuration for each further format, by the format's name.

    Args:
        config: The complete configuration, in its own format.
        asked: The formats; ``None`` for those of one byte that a device of the target computes in.
        backend: Whose devices.
        target: What is compiled for.

    Raises:
        InputError: One that was asked for does not go with the configuration, or that has one whose scales have a
            format.
    """
    formats = config.formats
    _refuse_scale_formats(config)
    own = {each.precision for each in (formats.activation, formats.weight) if each is not None}
    if formats.activation is None or formats.weight is None or formats.weight.block_size is not None:
        if asked:
            raise InputError(
                f"formats is {_names(asked)}, but the configuration quantizes activations as {formats.activation} and "
                f"weights as {formats.weight}. Other formats can only take the place of both, without blocks."
            )
        return {}
    for precision in asked or ():
        if precision.has_scale_format:
            raise InputError(
                f"formats has {precision.name}, of which files hold numbers with scales in a format of their own: tune "
                "cannot leave some in float in a file that is exported once. Leave it out."
            )
        if not precision.format.for_activations:
            raise InputError(f"formats has {precision.name}, which is for weights alone; leave it out.")
    chosen = _of_target(backend, target) if asked is None else asked
    return {
        precision.name: replace(
            config,
            activation=formats.activation.in_precision(precision),
            weight=formats.weight.in_precision(precision),
            policy=None,
        )
        for precision in chosen
        if precision not in own
    }


def _refuse_scale_formats(config: QuantConfig) -> None:
    """Refuse formats that files have no pair of QuantizeLinear and DequantizeLinear for, which a search takes out."""
    overrides = [layer for layer in (config.overrides or {}).values() if layer is not None]
    for what in ("weight", "activation"):
        found = [getattr(layer, what) for layer in (config.formats, *overrides)]
        named = next((each.precision.name for each in found if each and each.precision.has_scale_format), None)
        if named is not None:
            raise InputError(
                f"The configuration has {what}s in {named}, which files hold as numbers of the "
                "format: tune cannot leave some of them in float in a file that is exported once. Tune with INT8, INT4 "
                "or FP8, or choose what stays in float yourself: quantize(result, data, QuantConfig(skip=...))."
            )


def _of_target(backend: Backend, target: str) -> list[Precision]:
    computed = {dtype for device in backend.devices if device.target == target for dtype in device.operations}
    return [
        precision
        for precision in Precision
        if precision.bits == 8 and precision.format.for_activations and not precision.has_scale_format
        if precision.format.engine_type in computed
    ]


def _names(precisions: Collection[Precision]) -> str:
    return ", ".join(precision.name for precision in precisions)
