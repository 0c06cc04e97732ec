"""What a model goes through, stage by stage; what became of each is told before the next begins."""

import math
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

import embedl_deploy
from embedl_deploy import TransformationResult, check, export_onnx, transform
from embedl_deploy.artifact import read_onnx
from embedl_deploy.backend import PointKind, Severity
from embedl_deploy.compiling import CompileResult, run_engine
from embedl_deploy.errors import FusedModuleError
from embedl_deploy.numerics import QuantConfig
from embedl_deploy.quantize import quantization_report, quantize
from zoo.backends import BACKENDS, DEFAULT, Backend
from zoo.kernels import integer_kernels
from zoo.member import Made, Member, moved, perturb_constants, settle_statistics
from zoo.one_plan import other_plan

#: max|Δ| accepted of a transformed model in float32, relative to the largest output.
TOLERANCE = 1e-4
#: Decibels by which an engine may agree less with its model than the file does, as fused kernels round elsewhere; and
#: those that are enough in any case.
_ROUNDING, _AGREES = 3.0, 30.0
#: Bytes of weights that an engine of one protobuf file can hold.
ONE_FILE = 2e9

#: Takes a stage's name and what became of it: ``ok``, ``seconds``, ``reason`` where it failed, and figures.
Tell = Callable[[str, dict[str, Any]], None]


class StageFailedError(Exception):
    """A stage was passed without an exception, and its result is not right."""


def run_stages(
    member: Member,
    tell: Tell,
    stages: Collection[str] | None = None,
    device: str = "cpu",
    backend: str = DEFAULT,
    policy: str | None = None,
) -> None:
    """Take one model through stages.

    Args:
        member: The model.
        tell: Called with ``{}`` when a stage begins, and with its outcome when it has ended.
        stages: Which; one that another needs has to be among them. By default all.
        device: Where the model and its inputs are, such as ``"cuda"``.
        backend: Whose stages they are.
        policy: Where to quantize; by default the backend's own.
    """
    goes_through = BACKENDS[backend]
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(member, Path(folder), device, goes_through, policy)
        right = {""}
        for stage, needed in goes_through.needed.items():
            if needed not in right or (stages is not None and stage not in stages):
                continue
            tell(stage, {})
            start = time.perf_counter()
            outcome: dict[str, Any] = {"ok": True}
            try:
                outcome |= getattr(run, stage)()
                right.add(stage)
            except Exception as error:  # noqa: BLE001 - that a model fails, in whatever way, is what is measured
                outcome = {"ok": False, "reason": in_a_line(error)}
            outcome["seconds"] = round(time.perf_counter() - start, 1)
            tell(stage, outcome)


def in_a_line(error: BaseException) -> str:
    """The type of an exception and the first line of its text."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return first if isinstance(error, StageFailedError) else f"{type(error).__name__}: {first}"


class _Run:
    """The stages of one model, a method for each; each returns its figures."""

    def __init__(self, member: Member, folder: Path, device: str, backend: Backend, policy: str | None) -> None:
        self.member = member
        self.device = device
        self.folder = folder
        self.backend = backend
        self.policy = policy
        self.made: Made
        self.result: TransformationResult
        self.quantized: fx.GraphModule
        self.compiled: CompileResult
        self.written: float | None = None

    def build(self) -> dict[str, Any]:
        torch.manual_seed(0)
        self.made = self.member.make()
        self.made.model.eval()
        perturb_constants(self.made.model)
        settle_statistics(self.made)
        self.made = moved(self.made, self.device)
        with torch.no_grad():
            outputs = _floats(self.made.model(*self.made.args, **self.made.kwargs))
        if not any(bool(y.isfinite().all()) and bool(y.any()) for y in outputs):
            raise StageFailedError("the model itself computes nothing but zeros, or what is no number")
        return {"parameters": sum(p.numel() for p in self.made.model.parameters())}

    def transform(self) -> dict[str, Any]:
        self.result = transform(self.made.model, self.made.args, kwargs=self.made.kwargs, backend=self.backend.name)
        report = self.result.report
        if report["failed_count"]:
            raise StageFailedError(f"{report['failed_count']} rewrites failed")
        return {"capture": str(report["capture"]), "rewrites": report["applied_count"]}

    def agree(self) -> dict[str, Any]:
        difference = self.result.verify(*self.made.args, **self.made.kwargs)
        if not difference.max_rel <= TOLERANCE:
            raise StageFailedError(f"the transformed model differs: {difference}")
        return {"max_rel": difference.max_rel} | self._agrees_for_two()

    def _agrees_for_two(self) -> dict[str, Any]:
        """A batch twice as large, where model and graph take one."""
        args, kwargs = pytree.tree_map_only(torch.Tensor, _twice, (self.made.args, self.made.kwargs))
        try:
            with torch.no_grad():
                self.made.model(*args, **kwargs)
                self.result.model(*args, **kwargs)
        except FusedModuleError as error:
            raise StageFailedError(f"with a batch twice as large: {in_a_line(error)}") from error
        except Exception as error:  # noqa: BLE001 - the model, or what torch.export has fixed, may not be for it
            return {"larger_batch": in_a_line(error)[:200]}
        difference = self.result.verify(*args, **kwargs)
        if not difference.max_rel <= TOLERANCE:
            raise StageFailedError(f"the transformed model differs with a batch twice as large: {difference}")
        return {"larger_batch": "agrees"}

    def plan(self) -> dict[str, Any]:
        """One model has one plan, whatever captured it."""
        difference = other_plan(self.made, self.result, backend=self.backend.name)
        if difference is not None:
            raise StageFailedError(f"another plan through torch.export: {difference}")
        return {}

    def quantize(self) -> dict[str, Any]:
        batch = (self.made.args, self.made.kwargs)
        config = None if self.policy is None else QuantConfig(policy=self.policy)
        self.quantized = quantize(self.result, _runner(*batch), config, progress=False)
        report = quantization_report(self.quantized)
        weights = sum(point.kind is PointKind.WEIGHT for point in report.points)
        with torch.no_grad():
            wanted = _floats(self.made.model(*self.made.args, **self.made.kwargs))
            got = _floats(self.quantized.eval()(*self.made.args, **self.made.kwargs))
        return {
            "points": len(report.quantized),
            "weights": weights,
            "unfused": [list(place) for place in report.uncovered],
            "sqnr": _sqnr(wanted, got),
        }

    def int8(self) -> dict[str, Any]:
        parameters = sum(tensor.nbytes for tensor in self.quantized.parameters())
        return self._file("int8.onnx", integer_weights=parameters > ONE_FILE)  # what an engine in one file can hold

    def fp16(self) -> dict[str, Any]:
        return self._file("fp16.onnx", dtype=torch.float16)

    def _file(self, name: str, **settings: Any) -> dict[str, Any]:
        path = self.folder / name
        written = export_onnx(self.quantized, self.made.args, path, kwargs=self.made.kwargs or None, **settings)
        self.written = written.sqnr
        return {"megabytes": round(written.size / 1e6, 1), "sqnr": written.sqnr}

    @property
    def _path(self) -> Path:
        """The file that is checked and compiled."""
        return self.folder / f"{self.backend.file}.onnx"

    def check(self) -> dict[str, Any]:
        report = check(self._path, backend=self.backend.name)
        errors = report.of(Severity.ERROR)
        if not report.ok:
            raise StageFailedError(
                f"{len(errors)} errors: {errors[0].rule} {errors[0].message}" if errors else str(report)
            )
        return {"warnings": len(report.of(Severity.WARNING))}

    def engine(self) -> dict[str, Any]:
        self.compiled = embedl_deploy.compile(
            self._path, backend=self.backend.name, target=self.backend.target, progress=False
        )
        report = self.compiled.report
        return {"kernels": report.kernels} | integer_kernels(read_onnx(self._path), report)

    def run(self) -> dict[str, Any]:
        """The engine on the example, against the quantized model."""
        leaves = pytree.tree_leaves((self.made.args, self.made.kwargs))
        inputs = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        found = run_engine(self.compiled.path, inputs, backend=self.backend.name)
        with torch.no_grad():
            wanted = _floats(self.quantized(*self.made.args, **self.made.kwargs))
        got = _floats(list(found.values()))
        if [y.shape for y in wanted] != [y.shape for y in got]:
            raise StageFailedError("the engine gives other outputs than the model")
        sqnr = _sqnr(wanted, got)
        of_file = _AGREES if self.written is None else self.written
        if sqnr is not None and sqnr < min(_AGREES, of_file - _ROUNDING):
            raise StageFailedError(
                f"the engine differs from the quantized model: {sqnr} dB; its file: {of_file:.1f} dB"
            )
        return {"sqnr": sqnr}


def _twice(tensor: torch.Tensor) -> torch.Tensor:
    """The batch and once more, the other way round; what has no batch stays."""
    return torch.cat([tensor, tensor.flip(0)]) if tensor.dim() else tensor


def _runner(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Any], None]:
    def run(model: Any) -> None:
        model(*args, **kwargs)

    return run


def _floats(outputs: Any) -> list[torch.Tensor]:
    leaves = pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _sqnr(wanted: list[torch.Tensor], got: list[torch.Tensor]) -> float | None:
    """10·log₁₀(Σ y² / Σ (y' − y)²) over all outputs, in dB; ``None`` where no comparison is possible."""
    if [y.shape for y in wanted] != [y.shape for y in got]:
        return None
    pairs = [(y.double(), z.double()) for y, z in zip(wanted, got, strict=True)]
    pairs = [(y, z) for y, z in pairs if bool(y.isfinite().all())]
    signal, noise = sum(float((y**2).sum()) for y, _ in pairs), sum(float(((y - z) ** 2).sum()) for y, z in pairs)
    return round(10 * math.log10(signal / noise), 1) if signal > 0 and 0 < noise < math.inf else None
