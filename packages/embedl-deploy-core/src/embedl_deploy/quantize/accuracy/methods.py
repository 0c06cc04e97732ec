"""The methods for keeping accuracy that were asked for, and what data they need."""

from collections.abc import Iterator
from typing import NamedTuple

from embedl_deploy.distributed.ranks import Ranks
from embedl_deploy.errors import InputError
from embedl_deploy.quantize.accuracy.awq import AwqConfig
from embedl_deploy.quantize.accuracy.scaling_methods import Asked
from embedl_deploy.quantize.accuracy.smoothing import SmoothQuantConfig
from embedl_deploy.quantize.calibration.data import CalibrationData


class Methods(NamedTuple):
    """Those that look at samples."""

    equalization: bool
    smooth_quant: SmoothQuantConfig | None
    awq: AwqConfig | None
    bias_correction: bool
    learned_rounding: bool

    @classmethod
    def asked(
        cls,
        equalization: bool,
        smooth_quant: bool | float | SmoothQuantConfig,
        awq: bool | AwqConfig,
        bias_correction: bool,
        learned_rounding: bool,
    ) -> "Methods":
        """From the arguments of ``quantize``."""
        return cls(equalization, _smoothing(smooth_quant), _awq(awq), bias_correction, learned_rounding)

    @property
    def scaling(self) -> Asked:
        """Those that scale channels, before there are quantizers."""
        return Asked(self.equalization, self.smooth_quant, self.awq)

    @property
    def clips(self) -> bool:
        """Whether ranges of weights are searched."""
        return self.awq is not None and self.awq.clip

    @property
    def correct(self) -> bool:
        """Whether any changes weights or biases after calibration."""
        return self.bias_correction or self.learned_rounding or self.clips

    def check(self, batches: CalibrationData | None, ranks: Ranks) -> None:
        """Refuse data that they cannot be had with.

        Raises:
            InputError: There is none, or it can be read once.
        """
        asked = [name for name, value in self._asdict().items() if value]
        if batches is None and asked:
            raise InputError(f"{asked[0]} needs calibration data, which was not passed. Pass quantize(result, data).")
        reading = ("smooth_quant", "awq", *(["equalization"] if ranks.grouped else []))
        twice = [name for name in reading if name in asked]
        if twice and isinstance(batches, Iterator):
            raise InputError(
                f"{twice[0]} reads the calibration data twice, but it is a {type(batches).__name__}, which can be "
                "read once. Pass a list, a DataLoader or a function that takes the model and runs it."
            )


def _smoothing(asked: bool | float | SmoothQuantConfig) -> SmoothQuantConfig | None:
    if isinstance(asked, SmoothQuantConfig):
        return asked
    if isinstance(asked, bool):
        return SmoothQuantConfig() if asked else None
    return SmoothQuantConfig(alpha=asked)


def _awq(asked: bool | AwqConfig) -> AwqConfig | None:
    if isinstance(asked, AwqConfig):
        return asked
    return AwqConfig() if asked else None
