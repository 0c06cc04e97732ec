"""Padding, upsampling, shuffles, flattening, dropout and distances."""

from typing import Any

from torch import nn

from embedl_deploy.graph.forms import fixed_mode
from embedl_deploy.graph.forms.form import Call, Form, NoModuleFormError, from_constructor

_PADDED: dict[str, tuple[Any, ...]] = {
    "zeros": (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    "constant": (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d),
    "reflect": (nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    "replicate": (nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    "circular": (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
}
#: By the operator's name: the mode of ``nn.Upsample``.
_UPSAMPLED = {
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "bilinear",
    "upsample_bicubic2d": "bicubic",
    "upsample_trilinear3d": "trilinear",
} | {
    f"{name}{n}d": mode
    for name, mode in (("upsample_nearest", "nearest"), ("_upsample_nearest_exact", "nearest-exact"))
    for n in (1, 2, 3)
}
_DROPOUTS: dict[str, Any] = {
    "dropout": fixed_mode.FrozenDropout,
    "dropout1d": fixed_mode.FrozenDropout1d,
    "dropout2d": fixed_mode.FrozenDropout2d,
    "dropout3d": fixed_mode.FrozenDropout3d,
    "alpha_dropout": fixed_mode.FrozenAlphaDropout,
    "feature_alpha_dropout": fixed_mode.FrozenFeatureAlphaDropout,
}
_FEATURE_DROPOUTS: dict[int, str] = {3: "dropout1d", 4: "dropout2d", 5: "dropout3d"}


def _pad(call: Call) -> nn.Module:
    padding, mode, value = call.setting("pad"), call.setting("mode"), call.setting("value")
    if len(padding) not in (2, 4, 6) or mode not in _PADDED:
        raise NoModuleFormError("pad")
    dimension = len(padding) // 2 - 1
    if mode != "constant":
        return _PADDED[mode][dimension](padding)  # type: ignore[no-any-return]  # a table of classes
    if not value:
        return _PADDED["zeros"][dimension](padding)  # type: ignore[no-any-return]  # as above
    return _PADDED["constant"][dimension](padding, value)  # type: ignore[no-any-return]  # as above


def _interpolate(call: Call) -> nn.Module:
    if call.setting("antialias", False):
        raise NoModuleFormError("antialias")
    names = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
    settings = {name: call.setting(name) for name in names if name in call.values}
    if call.operation == "upsample_bilinear":
        settings |= {"mode": "bilinear", "align_corners": True}
    return nn.Upsample(**settings)


def _upsample(call: Call) -> nn.Module:
    if any(call.values.get(name) is not None for name in ("scales", "scales_d", "scales_h", "scales_w")):
        raise NoModuleFormError("scales")  # beside a size: torch computes with both
    return nn.Upsample(
        call.setting("output_size"),
        call.setting("scale_factors"),
        _UPSAMPLED[call.operation],
        align_corners=call.setting("align_corners"),
    )


def _dropout(call: Call) -> nn.Module:
    name = call.operation
    if name == "feature_dropout":
        name = _FEATURE_DROPOUTS.get(call.rank or 0, "dropout2d")
    module: nn.Module = _DROPOUTS[name](call.setting("p"), call.in_place or bool(call.setting("inplace", False)))
    return fixed_mode.in_mode(module, training=bool(call.setting("training" if "training" in call.values else "train")))


def _unflatten(call: Call) -> nn.Module:
    return nn.Unflatten(call.setting("dim"), call.setting("sizes"))


def _fold(call: Call) -> nn.Module:
    sizes = {name: call.setting(name) for name in ("kernel_size", "dilation", "padding", "stride")}
    if "output_size" in call.values:
        return nn.Fold(call.setting("output_size"), **sizes)
    return nn.Unfold(**sizes)


FORMS = (
    Form(("pad",), nn.Module, _pad),
    Form(("interpolate", "upsample", "upsample_nearest", "upsample_bilinear"), nn.Upsample, _interpolate),
    Form(tuple(_UPSAMPLED), nn.Upsample, _upsample),
    *(Form((name,), cls.__mro__[2], _dropout) for name, cls in _DROPOUTS.items()),
    Form(("feature_dropout",), nn.modules.dropout._DropoutNd, _dropout),
    from_constructor(nn.Flatten, "flatten"),
    Form(("unflatten",), nn.Unflatten, _unflatten),
    Form(("fold", "col2im"), nn.Fold, _fold),
    Form(("unfold", "im2col"), nn.Unfold, _fold),
    from_constructor(nn.PixelShuffle, "pixel_shuffle"),
    from_constructor(nn.PixelUnshuffle, "pixel_unshuffle"),
    from_constructor(nn.ChannelShuffle, "channel_shuffle", "native_channel_shuffle"),
    from_constructor(nn.CosineSimilarity, "cosine_similarity", inputs=("x1", "x2")),
    from_constructor(nn.PairwiseDistance, "pairwise_distance", inputs=("x1", "x2")),
)
