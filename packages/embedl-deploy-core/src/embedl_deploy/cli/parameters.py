"""Parses option values such as shapes and number lists, as callbacks of click."""

import re
from dataclasses import dataclass
from typing import Any

import click
import torch
from click.shell_completion import CompletionItem

from embedl_deploy.backend import discover_backends

_FACTORS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_SIZES = r"\d{1,18}(?:[x,]\d{1,18})*"


def complete_backend(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The installed backends, none of them imported."""
    return [CompletionItem(name) for name in discover_backends() if name.startswith(incomplete)]


def numbers(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Numbers with commas between them."""
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 0.5,0.5,0.5.") from None


def tolerance(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    """A difference that is accepted."""
    if value is not None and not value >= 0:  # NaN is not, either
        raise click.BadParameter(f"{value} is not a valid tolerance; give 0 or more.")
    return value


def size(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Height and width, or one number for both."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,8})(?:[x,]([1-9]\d{0,8}))?", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a size such as 224, or height and width such as 224,320.")
    return int(match[1]), int(match[2] or match[1])


def count_of_bytes(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """A number of bytes, with K, M or G for powers of 1024."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,18})([KMG]?)", text.upper())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a number of bytes such as 512M.")
    return int(match[1]) * _FACTORS[match[2]]


@dataclass(frozen=True)
class OpenDimension:
    """A dimension that ``--dynamic`` leaves open.

    Attributes:
        name: The input; ``""`` for the first.
        dimension: Which of its dimensions.
        dim: Its name and limits.
    """

    name: str
    dimension: int
    dim: torch.export.Dim


def open_dimensions(
    _context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[OpenDimension, ...]:
    """Dimensions of inputs that may be of any size."""
    found = []
    for text in texts:
        match = re.fullmatch(r"(?:(.+):)?(\d{1,3})=([A-Za-z_]\w*)(?::(\d{1,9})-(\d{1,9}))?", text)
        if match is None or (match[4] and int(match[4]) >= int(match[5])):
            raise click.BadParameter(f"{text!r} is not [NAME:]DIMENSION=LABEL[:MIN-MAX], such as ids:1=length:2-512.")
        low, high = (int(match[4]), int(match[5])) if match[4] else (None, None)
        found.append(OpenDimension(match[1] or "", int(match[2]), torch.export.Dim(match[3], min=low, max=high)))
    return tuple(found)


def shapes_by_name(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """By name of an input, its shape."""
    shapes = {}
    for text in texts:
        match = re.fullmatch(rf"(.+)=({_SIZES})", text)
        if match is None:
            raise click.BadParameter(f"{text!r} is not NAME=SHAPE, such as x=8,3,224,224.")
        shapes[match[1]] = tuple(int(size) for size in re.split("[x,]", match[2]))
    return shapes


def shape_ranges(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """By name of an input, its smallest, usual and largest shape."""
    shapes = {}
    for text in texts:
        match = re.fullmatch(rf"(.+)=({_SIZES}(?:/{_SIZES}){{2}})", text)
        if match is None:
            example = "x=1,3,8,8/4,3,8,8/8,3,8,8"
            raise click.BadParameter(f"{text!r} is not NAME=SMALLEST/USUAL/LARGEST, such as {example}.")
        shapes[match[1]] = tuple(tuple(int(n) for n in re.split("[x,]", shape)) for shape in match[2].split("/"))
    return shapes
