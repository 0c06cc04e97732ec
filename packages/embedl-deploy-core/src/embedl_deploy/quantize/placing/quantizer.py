"""The quantizer module: rounds to a grid, or observes during calibration."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from embedl_deploy.errors import QuantizationError
from embedl_deploy.numerics.formats import Precision
from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.grid.observers import Observer
from embedl_deploy.quantize.grid.operators import dequantize, fake_quantize, quantize_values
from embedl_deploy.quantize.grid.scales import Grid
from embedl_deploy.quantize.grid.shared_gradient import GradientOfRanks
from embedl_deploy.quantize.placing.stored_format import StoresFormat
from embedl_deploy.validation.checked import checked


class Quantizer(StoresFormat):
    """Quantizes and dequantizes one tensor.

    Its state is two buffers, ``scale`` and (asymmetric only) ``zero_point``; the scale is a parameter where it is
    learnable. A scale of NaN means: not calibrated yet. A format whose scales are numbers of a format may have a third,
    ``tensor_scale``, which is a factor of all scales; they stay in float32 when the model is converted.

    Args:
        config: How the tensor is quantized.
        name: The tensor, for messages.
        is_weight: Whether it is a weight.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor | None
    tensor_scale: torch.Tensor | None

    @checked
    def __init__(self, config: TensorQuantConfig, name: str, *, is_weight: bool = False) -> None:
        super().__init__()
        self.config = config
        self.name = name
        self.is_weight = is_weight
        self.observer: Observer | None = None
        self.gradient: GradientOfRanks | None = None
        self.calibrated = False
        scale = torch.tensor(float("nan"))
        if config.learnable:
            self.scale = nn.Parameter(scale)
        else:
            self.register_buffer("scale", scale)
        self.register_buffer(
            "zero_point", None if config.symmetric else torch.zeros((), dtype=config.precision.format.storage)
        )
        of_tensor = torch.tensor(1.0) if config.precision.format.second_scale else None
        self.register_buffer("tensor_scale", of_tensor)

    def set_grid(self, grid: Grid) -> None:
        """Take over a calibrated grid, on the device where the scale is."""
        self._set_scale(grid.scale.to(self.scale.device), calibrated=bool(torch.isfinite(grid.scale).all()))
        if self.zero_point is not None:
            self.zero_point.fill_(grid.zero_point or 0)
        if self.tensor_scale is not None and grid.tensor_scale is not None:
            self.tensor_scale.copy_(grid.tensor_scale)

    def _set_scale(self, scale: torch.Tensor, *, calibrated: bool) -> None:
        if isinstance(self.scale, nn.Parameter):
            # The parameter stays the same object: an optimizer may hold it already.
            self.scale.data, self.scale.grad = scale.clone(), None
        else:
            self.scale = scale.clone()
        self.calibrated = calibrated  # asked of the caller: on the meta device a scale has no value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x``, any shape, rounded to the grid; ``x`` itself while it is observed.

        Raises:
            QuantizationError: There is no scale yet.
        """
        if self.observer is not None:
            if self.scale.device != x.device:  # a model on several devices: its tensors are where they are seen
                self.to(x.device)
            self.observer.observe(x)
            return x
        if not self.calibrated:
            raise QuantizationError(
                f"{self.name} is not calibrated. Run calibrate(model, data), or load a state_dict that was saved "
                "after calibration.",
                tensor=self.name,
            )
        if self.config.precision.has_scale_format:
            return self._in_blocks(x)
        scale = self.scale
        if isinstance(scale, nn.Parameter):
            scale = scale if self.gradient is None else self.gradient(scale)
            scale = scale.abs().clamp(min=torch.finfo(torch.float32).tiny)
        if scale.dtype != x.dtype:  # autocast, or a model that was converted as a whole
            scale = scale.to(x.dtype)
        return self._rounded(x, scale)

    def _in_blocks(self, x: torch.Tensor) -> torch.Tensor:
        return self._rounded(x.float(), self.scale).to(x.dtype)

    def _rounded(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return fake_quantize(  # type: ignore[no-any-return]  # operators are untyped callables
            x, scale, self.zero_point, self.config.scale_axis, self.config.scale_block, self.config.precision.value
        )

    def _apply(self, fn: Any, recurse: bool = True) -> "Quantizer":
        """Move with the model; scales that are numbers of a format keep their type."""
        kept = keeping_types(fn) if self.config.precision.has_scale_format else fn
        super()._apply(kept, recurse)  # type: ignore[no-untyped-call]  # of torch
        return self

    def _make_room(self, state_dict: dict[str, Any], prefix: str) -> None:
        stored = state_dict.get(f"{prefix}scale")
        if isinstance(stored, torch.Tensor):  # its shape is known only once it is calibrated
            room = torch.empty_like(stored, device=self.scale.device, dtype=self.scale.dtype).fill_(1.0)
            self._set_scale(room, calibrated=bool(torch.isfinite(stored).all()))

    def extra_repr(self) -> str:
        """The format, and the scale or its range."""
        if not self.calibrated:
            return f"{self.config}, not calibrated"
        low, high = self.scale.detach().aminmax()
        return f"{self.config}, scale {low:.3g}" + ("" if self.scale.dim() == 0 else f"…{high:.3g}")


def keeping_types(fn: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """What :meth:`torch.nn.Module._apply` is given, but for changes of type: devices alone."""
    return lambda tensor: tensor.to(fn(tensor).device)


class IntegerWeight(StoresFormat):
    """A weight stored in its quantized format. Replaces a quantizer; its argument is not used.

    Args:
        quantizer: The calibrated quantizer that it takes over from.
        weight: The weight that flowed into it.
    """

    values: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor | None

    @checked
    def __init__(self, quantizer: Quantizer, weight: torch.Tensor) -> None:
        super().__init__()
        self.config, self.name, self.readers = quantizer.config, quantizer.name, quantizer.readers
        axis, block = self.config.scale_axis, self.config.scale_block
        scale = quantizer.scale.detach().abs().to(weight.dtype)
        zero_point = quantizer.zero_point
        values = quantize_values(weight.detach(), scale, zero_point, axis, block, self.config.precision)
        self.register_buffer("values", values.to(self.config.precision.format.storage))
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", None if zero_point is None else zero_point.clone())

    def _apply(self, fn: Any, recurse: bool = True) -> "IntegerWeight":
        """Move with the model, but keep the numbers as they are stored: ``half()`` takes FP8 for a float to convert."""
        stored = self.values
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # as above
        if self.values.dtype != stored.dtype:
            self.values = stored.to(self.scale.device)
        return self

    @property
    def precision(self) -> Precision:
        """The number format."""
        return self.config.precision

    def forward(self, _weight: torch.Tensor | None = None) -> torch.Tensor:
        """The dequantized weight."""
        weight: torch.Tensor = dequantize(
            *(self.values, self.scale, self.zero_point),
            *(self.config.scale_axis, self.config.scale_block, self.precision.value),
        )
        return weight

    def extra_repr(self) -> str:
        """The format and the weight's shape."""
        return f"{self.config}, {tuple(self.values.shape)}"
