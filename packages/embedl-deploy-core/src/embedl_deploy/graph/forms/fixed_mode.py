"""Modules that compute in one mode, whatever is asked: a call of a function does not look at any mode."""

from typing import Any, ClassVar

from torch import nn


class FixedMode:
    """A mixin: ``train`` and ``eval`` change nothing. In evaluation mode, unless it is made otherwise."""

    stands_for_base: ClassVar[bool] = True

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        object.__setattr__(self, "training", False)

    def train(self: Any, mode: bool = True) -> Any:
        """Stay in the mode, whatever is asked."""
        return self


class FrozenBatchNorm1d(FixedMode, nn.BatchNorm1d):
    """Batch normalization by running statistics, in training mode too."""


class FrozenBatchNorm2d(FixedMode, nn.BatchNorm2d):
    """Batch normalization by running statistics, in training mode too."""


class FrozenBatchNorm3d(FixedMode, nn.BatchNorm3d):
    """Batch normalization by running statistics, in training mode too."""


class FrozenInstanceNorm1d(FixedMode, nn.InstanceNorm1d):
    """Instance normalization by running statistics, in training mode too."""


class FrozenInstanceNorm2d(FixedMode, nn.InstanceNorm2d):
    """Instance normalization by running statistics, in training mode too."""


class FrozenInstanceNorm3d(FixedMode, nn.InstanceNorm3d):
    """Instance normalization by running statistics, in training mode too."""


class FrozenDropout(FixedMode, nn.Dropout):
    """Dropout that drops always or never."""


class FrozenDropout1d(FixedMode, nn.Dropout1d):
    """Dropout of channels that drops always or never."""


class FrozenDropout2d(FixedMode, nn.Dropout2d):
    """Dropout of channels that drops always or never."""


class FrozenDropout3d(FixedMode, nn.Dropout3d):
    """Dropout of channels that drops always or never."""


class FrozenAlphaDropout(FixedMode, nn.AlphaDropout):
    """Alpha dropout that drops always or never."""


class FrozenFeatureAlphaDropout(FixedMode, nn.FeatureAlphaDropout):
    """Alpha dropout of channels that drops always or never."""


class FrozenRReLU(FixedMode, nn.RReLU):
    """Randomized leaky ReLU that draws its slopes always or never."""


def class_name(module: nn.Module) -> str:
    """The class of a module as users know it: that of ``torch.nn`` for one that stays in its mode."""
    cls = type(module)
    return cls.__mro__[2].__name__ if isinstance(module, FixedMode) else cls.__name__


def in_mode(module: nn.Module, *, training: bool) -> nn.Module:
    """A module of this file, in its mode."""
    object.__setattr__(module, "training", training)
    return module
