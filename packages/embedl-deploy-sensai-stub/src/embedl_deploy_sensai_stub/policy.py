"""Where a quantizer gains nothing on the engine."""

from torch import nn

from embedl_deploy.backend import QuantPoint


def fixed_point(point: QuantPoint) -> str | None:
    """Leave out max-pooling, which picks among the numbers that are there already."""
    if any(isinstance(part, nn.MaxPool2d) for part in point.parts):
        return "max-pooling makes no new numbers"
    return None
