"""Which points are quantized: a policy that can be written down, read, changed, and applied again."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedl_deploy.errors import InputError
from embedl_deploy.files import atomic_write, read_text
from embedl_deploy.json_text import NotJsonError, parse_json
from embedl_deploy.numerics.points import QuantPoint
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.validation.checked import checked

_VERSION = 1
_FIELDS = ("version", "quantized", "in_float")


@checked
@dataclass(frozen=True)
class TunedPolicy:
    """A policy that quantizes certain points of one model.

    Pass it as ``QuantConfig(policy=...)``. A point that it does not know is quantized.

    Attributes:
        in_float: Why a point stays in float, by (path of the module, label of the point).
        quantized: The points that are quantized, for people to read.
    """

    in_float: Mapping[tuple[str, str], str]
    quantized: tuple[tuple[str, str], ...] = ()

    @property
    def __name__(self) -> str:
        return "tuned"

    def __call__(self, point: QuantPoint) -> str | None:
        """Why a point stays in float; ``None`` to quantize it."""
        return self.in_float.get((point.path, point.label))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "version": _VERSION,
            "quantized": [list(key) for key in self.quantized],
            "in_float": [[*key, reason] for key, reason in self.in_float.items()],
        }

    @staticmethod
    @checked
    def from_dict(plain: dict[str, Any]) -> "TunedPolicy":
        """From what :meth:`to_dict` gave, before or after JSON.

        Raises:
            InputError: It is something else.
        """
        if plain.get("version") != _VERSION or not all(isinstance(plain.get(name), list) for name in _FIELDS[1:]):
            raise InputError(f"These are not tuned decisions of version {_VERSION}: expected {', '.join(_FIELDS)}.")
        for name, length in (("quantized", 2), ("in_float", 3)):
            for row in plain[name]:
                if not (isinstance(row, list) and len(row) == length and all(isinstance(each, str) for each in row)):
                    raise InputError(f"Tuned decisions: {row!r} in {name!r}; expected {length} texts.")
        in_float = {(path, label): reason for path, label, reason in plain["in_float"]}
        return TunedPolicy(in_float, tuple((path, label) for path, label in plain["quantized"]))

    @checked
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the decisions as JSON."""
        with atomic_write(Path(path)) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @staticmethod
    @checked
    def load(path: str | os.PathLike[str]) -> "TunedPolicy":
        """Read what :meth:`save` wrote.

        Raises:
            InputError: There is no such file, or it holds something else.
        """
        try:
            plain = parse_json(read_text(path, "tuned decisions"))
        except NotJsonError as error:
            raise InputError(
                f"{os.fspath(path)!r} holds no tuned decisions, because it is not JSON: {error}."
            ) from error
        return TunedPolicy.from_dict(plain if isinstance(plain, dict) else {})


def policy_of(points: Iterable[PointReport], in_float: Mapping[PointReport, str]) -> TunedPolicy:
    """The policy of a search.

    Args:
        points: All points of the model, with what became of them where everything was quantized.
        in_float: Why some of those that were quantized are not.
    """
    reasons: dict[tuple[str, str], str] = {}
    quantized: list[tuple[str, str]] = []
    for point in points:
        reason = in_float.get(point) if point.quantized else point.rule
        if reason is None:
            quantized.append((point.path, point.label))
        else:
            reasons[point.path, point.label] = reason
    return TunedPolicy(reasons, tuple(quantized))
