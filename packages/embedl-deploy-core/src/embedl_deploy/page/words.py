"""Figures and precisions in words and colours."""

from embedl_deploy.files import size_in_words
from embedl_deploy.page.html import Html, tag

#: Classes of colour, by the start of a precision's name.
_COLOURS = {
    "int8": "int8",
    "uint8": "int8",
    "int4": "int4",
    "float4": "int4",
    "nvfp4": "int4",
    "mxfp4": "int4",
    "int16": "int16",
    "float8": "fp8",
    "fp8": "fp8",
    "float16": "half",
    "bfloat16": "half",
    "float": "full",
}
#: What the colours mean, in the order of a legend.
LEGEND = {"int4": "4 bits", "int8": "INT8", "fp8": "FP8", "int16": "INT16", "half": "16 bits, float", "full": "float"}


def colour_of(precision: str) -> str:
    """The class of colour of a precision; empty if it has none."""
    fitting = [start for start in _COLOURS if precision.startswith(start)]
    return _COLOURS[max(fitting, key=len)] if fitting else ""


def chip(precision: str) -> Html | None:
    """A precision in its colour; ``None`` where it is not known."""
    return tag("span", precision, class_=f"chip p-{colour_of(precision) or 'other'}") if precision else None


def size(count: float) -> str:
    """Bytes in words."""
    return size_in_words(count) if count else "0"


def duration(seconds: float) -> str:
    """A time in words, to three digits: ``1.23 s``, ``4.56 ms``, ``78.9 µs``."""
    for least, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= least * 0.9995:
            return f"{_three_digits(seconds / least)} {unit}"
    return f"{_three_digits(seconds * 1e6)} µs"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def number(value: float | None, infinite: str = "∞") -> str:
    """A measured value to four digits; ``infinite`` for what JSON has no number for."""
    return infinite if value is None else f"{value:.4g}"


def counted(count: int, what: str) -> str:
    """A count with its noun: ``"1 kernel"``, ``"2 kernels"``."""
    return f"{count} {what}{'' if count == 1 else 's'}"
