"""Which points are quantized, and how: a policy that can be written down, read, changed, and applied again."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embedl_deploy.errors import InputError, QuantizationConfigError
from embedl_deploy.files import read_text, write_text
from embedl_deploy.json_text import NotJsonError, parse_json
from embedl_deploy.numerics.config import LayerQuantConfig, QuantConfig
from embedl_deploy.numerics.points import PointKind, QuantPoint
from embedl_deploy.numerics.selectors import Selector
from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.placing.hardware import complete_config
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.validation.checked import checked

_VERSION = 2
#: The lists of rows in JSON, with the types of what follows path and label.
_ROWS: dict[str, tuple[type, ...]] = {"quantized": (), "formats": (dict,), "in_float": (str,)}
_WORDS: dict[type, str] = {str: "a text", dict: "a format's settings"}


@checked
@dataclass(frozen=True)
class TunedPolicy:
    """A policy that quantizes certain points of one model.

    :meth:`config` makes a configuration of it; where there are no ``formats``, ``QuantConfig(policy=...)`` is the same.
    A point that it does not know is quantized.

    Attributes:
        in_float: Why a point stays in float, by (path of the module, label of the point).
        quantized: The points that are quantized, for people to read.
        formats: The points that have another format than the configuration's.
        backend: The backend that it is for.
    """

    in_float: Mapping[tuple[str, str], str]
    quantized: tuple[tuple[str, str], ...] = ()
    formats: Mapping[tuple[str, str], TensorQuantConfig] = field(default_factory=dict)
    backend: str | None = None

    @property
    def __name__(self) -> str:
        return "tuned"

    def __call__(self, point: QuantPoint) -> str | None:
        """Why a point stays in float; ``None`` to quantize it.

        Raises:
            QuantizationConfigError: It is to have another format: the configuration was not made by :meth:`config`.
        """
        other = self.formats.get((point.path, point.label))
        if other is not None and other.precision.value != point.precision:
            raise QuantizationConfigError(
                f"The tuned decisions quantize {point} to {other.precision.name}, which a policy alone cannot do. Pass "
                "policy.config() instead of QuantConfig(policy=policy)."
            )
        return self.in_float.get((point.path, point.label))

    @checked
    def config(self, base: QuantConfig | None = None) -> QuantConfig:
        """A configuration that quantizes as was decided.

        Args:
            base: Formats and exceptions of the search; by default those of the backend's hardware.
        """
        if not self.formats:
            return replace(base or QuantConfig(), policy=self)
        complete = complete_config(base, self.backend)
        overrides: dict[Selector, LayerQuantConfig | None] = {**(complete.overrides or {})}
        for is_weight in (False, True):
            for given in dict.fromkeys(self.formats.values()):
                formats = LayerQuantConfig(None, given) if is_weight else LayerQuantConfig(given, None)
                if is_weight or given.shares_one_scale:
                    overrides[_Meant(self, given, is_weight)] = formats
        return replace(complete, policy=self, overrides=overrides)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "version": _VERSION,
            "backend": self.backend,
            "quantized": [list(key) for key in self.quantized],
            "formats": [[*key, given.to_dict()] for key, given in self.formats.items()],
            "in_float": [[*key, reason] for key, reason in self.in_float.items()],
        }

    @staticmethod
    @checked
    def from_dict(plain: dict[str, Any]) -> "TunedPolicy":
        """From what :meth:`to_dict` gave, before or after JSON.

        Raises:
            InputError: It is something else.
            QuantizationConfigError: A format is none.
        """
        if plain.get("version") != _VERSION or not all(isinstance(plain.get(name), list) for name in _ROWS):
            raise InputError(f"These are not tuned decisions of version {_VERSION}: expected {', '.join(_ROWS)}.")
        for name, last in _ROWS.items():
            kinds = (str, str, *last)
            for row in plain[name]:
                if not isinstance(row, list) or [type(each) for each in row] != list(kinds):
                    words = ", ".join(_WORDS[kind] for kind in kinds)
                    raise InputError(f"Tuned decisions: {row!r} in {name!r}; expected {words}.")
        backend = plain.get("backend")
        if backend is not None and not isinstance(backend, str):
            raise InputError(f"Tuned decisions: the backend is {backend!r}; expected a name.")
        return TunedPolicy(
            {(path, label): reason for path, label, reason in plain["in_float"]},
            tuple((path, label) for path, label in plain["quantized"]),
            {(path, label): TensorQuantConfig.from_dict(given) for path, label, given in plain["formats"]},
            backend,
        )

    @checked
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the decisions as JSON."""
        write_text(Path(path), json.dumps(self.to_dict(), indent=1))

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


@dataclass(frozen=True)
class _Meant:
    """A selector: the points that are to have one format."""

    policy: TunedPolicy
    format: TensorQuantConfig
    is_weight: bool

    @property
    def __name__(self) -> str:
        return f"tuned, {self.format.precision.name}"

    def __call__(self, point: QuantPoint) -> bool:
        given = self.policy.formats.get((point.path, point.label))
        return given == self.format and (point.kind is PointKind.WEIGHT) is self.is_weight

    def __hash__(self) -> int:
        return hash((id(self.policy), self.format, self.is_weight))


def policy_of(
    points: Iterable[PointReport],
    in_float: Mapping[PointReport, str],
    others: Iterable[PointReport] = (),
    backend: str | None = None,
) -> TunedPolicy:
    """The policy of a search.

    Args:
        points: All points of the model, with what became of them where everything was quantized.
        in_float: Why some of those that were quantized are not.
        others: The points that are quantized in another format.
        backend: The backend's name.
    """
    formats = {(point.path, point.label): point.format for point in others if point.format is not None}
    reasons: dict[tuple[str, str], str] = {}
    quantized: list[tuple[str, str]] = []
    for point in points:
        reason = in_float.get(point) if point.quantized else point.rule
        if reason is None or (point.path, point.label) in formats:
            quantized.append((point.path, point.label))
        else:
            reasons[point.path, point.label] = reason
    return TunedPolicy(reasons, tuple(quantized), formats, backend)
