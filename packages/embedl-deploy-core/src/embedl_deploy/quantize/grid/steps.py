"""The scale that a range asks for: its largest magnitude becomes the largest number."""

from dataclasses import dataclass

import torch

from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.grid.block_scales import block_scales, scale_of_tensor

#: Shares of the largest magnitude that a search for the best range tries.
SHARES = torch.linspace(1.0, 0.2, 81, dtype=torch.float64)
#: The same for scales that are numbers of a format, the next of which may be larger.
_SHARES_IN_BLOCKS = torch.linspace(0.5, 2.0, 61, dtype=torch.float64)
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny


def scale_of(amax: torch.Tensor, config: TensorQuantConfig) -> torch.Tensor:
    """A range divided by the largest number: 1 where it is 0, the next power of two if so asked; float32."""
    return allowed_scale(torch.where(amax == 0, 1.0, amax.double() / config.precision.high), config).float()


def allowed_scale(scale: torch.Tensor, config: TensorQuantConfig) -> torch.Tensor:
    """The next larger scale that float32, and the configuration, have; float64."""
    scale = scale.clamp(min=_SMALLEST_SCALE)
    return torch.exp2(torch.ceil(torch.log2(scale))) if config.power_of_two else scale


@dataclass(frozen=True)
class Steps:
    """How magnitudes of a weight become scales.

    Attributes:
        config: The weight's format.
        of_tensor: A factor of all scales, where the format has one.
    """

    config: TensorQuantConfig
    of_tensor: torch.Tensor | None = None

    @staticmethod
    def of_weight(amax: torch.Tensor, config: TensorQuantConfig) -> "Steps":
        """For a weight with these largest magnitudes, (N,), of what shares a scale."""
        has_format = config.precision.has_scale_format
        return Steps(config, scale_of_tensor(amax, config.precision) if has_format else None)

    def scale(self, amax: torch.Tensor) -> torch.Tensor:
        """The scales, float32, for largest magnitudes."""
        if self.config.precision.has_scale_format:
            return block_scales(amax, self.config.precision, self.of_tensor)
        return scale_of(amax, self.config)

    @property
    def shares(self) -> list[float]:
        """What a search for the best range multiplies magnitudes by."""
        return (_SHARES_IN_BLOCKS if self.config.precision.has_scale_format else SHARES).tolist()
