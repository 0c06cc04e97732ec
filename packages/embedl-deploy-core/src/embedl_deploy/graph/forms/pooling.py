"""Pooling, adaptive pooling, and its reverse."""

from dataclasses import replace
from typing import Any

from torch import nn

from embedl_deploy.graph.forms.form import Call, Form, from_constructor

_MAX: tuple[Any, ...] = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_ADAPTIVE_MAX: tuple[Any, ...] = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_AVERAGE: tuple[Any, ...] = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE: tuple[Any, ...] = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_LP: tuple[Any, ...] = (nn.LPPool1d, nn.LPPool2d, nn.LPPool3d)
_UNPOOL: tuple[Any, ...] = (nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d)


def _with_indices(form: Form, *, always: bool) -> Form:
    """The same with the indices as a second result: always, or where no argument says otherwise."""

    def build(call: Call) -> nn.Module:
        if always or "return_indices" not in call.values:
            call = replace(call, values={**call.values, "return_indices": True})
        return form.build(call)

    return replace(form, build=build)


FORMS = (
    *(from_constructor(cls, f"max_pool{n}d") for n, cls in enumerate(_MAX, start=1)),
    *(
        _with_indices(from_constructor(cls, f"{name}{n}d_with_indices"), always=True)
        for name, classes in (("max_pool", _MAX), ("adaptive_max_pool", _ADAPTIVE_MAX))
        for n, cls in enumerate(classes, start=1)
    ),
    *(
        _with_indices(from_constructor(cls, f"adaptive_max_pool{n}d"), always=False)
        for n, cls in enumerate(_ADAPTIVE_MAX, start=1)
    ),
    *(from_constructor(cls, f"avg_pool{n}d") for n, cls in enumerate(_AVERAGE, start=1)),
    *(from_constructor(cls, f"adaptive_avg_pool{n}d") for n, cls in enumerate(_ADAPTIVE, start=1)),
    *(from_constructor(cls, f"lp_pool{n}d") for n, cls in enumerate(_LP, start=1)),
    *(from_constructor(cls, f"max_unpool{n}d", inputs=("input", "indices")) for n, cls in enumerate(_UNPOOL, start=1)),
)
