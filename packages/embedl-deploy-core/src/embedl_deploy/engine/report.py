"""The report of an engine: its figures, as a table for people and as JSON."""

import dataclasses
import os
from dataclasses import asdict, dataclass
from typing import Any

from embedl_deploy.engine.figures import EngineFigures
from embedl_deploy.engine.tables import report_table
from embedl_deploy.engine.timing import Timing
from embedl_deploy.errors import InputError
from embedl_deploy.files import read_text
from embedl_deploy.json_text import NotJsonError, parse_json
from embedl_deploy.page import render_page
from embedl_deploy.plain_values import value_of
from embedl_deploy.validation.checked import checked

_VERSION = 4


def _timing_to_dict(timing: Timing) -> dict[str, Any]:
    """Every run, and what follows from them."""
    return {**asdict(timing), **{name: getattr(timing, name) for name in ("median", "quartiles", "spread", "runs")}}


@checked
@dataclass(frozen=True)
class EngineReport(EngineFigures):
    """What a compiler made of an ONNX file.

    Attributes:
        model: Name of the ONNX file.
        compiler: Name and version of the compiler: figures of one say little about another.
        target: What it was compiled for.
        layers: In the order in which they run.
        engine_bytes: Size of the engine.
        build_seconds: How long the compiler took.
        float_layers: What runs in 16 bits or more and why; empty for a file without quantizers.
        messages: Warnings of the compiler.
        usual_inputs: The inputs with open dimensions, in the usual shapes that the engine was compiled for: bytes and
            operations are those at these shapes, and so are times. Empty where all sizes are fixed.
        timing: The runs that were timed; ``None`` where nothing was.
    """

    @checked
    def table(self, *, layers: bool = False) -> str:
        """Totals, precisions, reformats and what stayed in float, for people; every layer, if asked."""
        return report_table(self, layers=layers)

    def to_html(self) -> str:
        """The report as a page that needs nothing else; :func:`embedl_deploy.page.write_page` joins several."""
        return render_page(engine=self)

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; totals included."""
        return {
            "version": _VERSION,
            **self.totals,
            "layers": [layer.to_dict() for layer in self.layers],
            "float_layers": [{**asdict(entry), "kind": entry.kind.value} for entry in self.float_layers],
            "messages": list(self.messages),
            "usual_inputs": [asdict(tensor) for tensor in self.usual_inputs],
            "timing": None if self.timing is None else _timing_to_dict(self.timing),
        }

    @classmethod
    @checked
    def from_dict(cls, plain: dict[str, Any]) -> "EngineReport":
        """From what :meth:`to_dict` gave, before or after JSON.

        Raises:
            InputError: It is not a report, or one of another version.
        """
        version = plain.get("version")
        if type(version) is int and 0 < version < _VERSION:
            raise InputError(
                f"This is an engine report of version {version}, from an earlier release; this one reads version "
                f"{_VERSION}, which knows of measured times. Compile the file again to have its report anew."
            )
        if version != _VERSION:
            raise InputError(f"This is not an engine report of version {_VERSION}: its version is {version!r}.")
        fields = [field.name for field in dataclasses.fields(cls)]
        try:
            missing = next((name for name in fields if name not in plain), None)
            if missing is not None:
                raise ValueError(f"it has no {missing!r}")
            return value_of(cls, {name: plain[name] for name in fields})
        except ValueError as error:
            raise InputError(f"The engine report is damaged: {error}.") from error

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> "EngineReport":
        """Read the JSON file that ``compile`` writes beside an engine.

        Raises:
            InputError: The file does not exist, or it is not a report.
        """
        try:
            plain = parse_json(read_text(path, "an engine report, such as compile writes"))
        except NotJsonError as error:
            raise InputError(f"{os.fspath(path)!r} is not an engine report: {error}.") from error
        try:
            return cls.from_dict(plain if isinstance(plain, dict) else {})
        except InputError as error:
            raise InputError(f"{os.fspath(path)!r}: {error}") from error
