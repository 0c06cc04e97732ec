"""Engines of candidates: each file is built once, whatever it is called and in whichever run."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedl_deploy.compiling import CompileResult
from embedl_deploy.compiling import compile as compile_onnx
from embedl_deploy.compiling.guarded import CompilerEndedError
from embedl_deploy.engine import EngineReport
from embedl_deploy.errors import CompileError
from embedl_deploy.state_file import StateFile
from embedl_deploy.tuning.clock import Clock
from embedl_deploy.tuning.file_digest import digest_of

if TYPE_CHECKING:
    import onnx_ir as ir

#: Constants beyond this are in a file of their own: protobuf ends at 2 GB.
_ONE_FILE_BYTES = 10**9


@dataclass(frozen=True)
class Built:
    """What is known of an engine.

    Attributes:
        report: What the compiler tells of it.
        seconds: What a run takes; ``None`` where it was not timed.
    """

    report: EngineReport
    seconds: float | None = None


class Builds:
    """Builds engines, and times them where that is asked for.

    Args:
        settings: Arguments of :func:`embedl_deploy.compile`.
        state: Where reports are kept.
        found: What the state holds; new reports are added.
        clock: Times engines.

    Attributes:
        reference: Makes the file whose engine is the clock's reference.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        state: StateFile,
        found: dict[str, Any],
        clock: Clock | None = None,
    ) -> None:
        self.settings, self.state, self.found, self.clock = settings, state, found, clock
        self.reference: Callable[[], ir.Model] | None = None
        self.digests: dict[str, str] = found.setdefault("files", {})
        self.reports: dict[str, Any] = found.setdefault("reports", {})
        self.seconds: dict[str, float] = found.setdefault("seconds", {})
        self.together: dict[str, list[float]] = found.setdefault("together", {})
        self.count = 0

    def built(self, key: str, make: Callable[[], "ir.Model"]) -> Built | None:
        """A candidate's engine; ``None`` if the compiler refuses it.

        Args:
            key: Names the candidate in every run.
            make: Makes its file's model; called where the candidate is not known yet.

        Raises:
            CompileError: The engine is to be timed, and cannot be run here.
        """
        if not self._is_known(self.digests.get(key)):
            model = make()
            digest = self.digests[key] = digest_of(model)
            if not self._is_known(digest):
                self._build_reference()
            if not self._is_known(digest):
                self._build(model, digest)
            self.state.save(self.found)
        digest = self.digests[key]
        plain = self.reports[digest]
        return None if plain is None else Built(EngineReport.from_dict(plain), self.seconds.get(digest))

    def timed_together(self, keys: Sequence[str], makers: Sequence[Callable[[], "ir.Model"]]) -> list[float]:
        """What a run takes of engines that were built before, from turns in which all of them take part.

        Args:
            keys: Name the candidates.
            makers: Make their files' models.

        Raises:
            CompileError: One is refused now, or cannot be run here.
        """
        assert self.clock is not None  # only times are taken together
        together = " ".join(self.digests[key] for key in keys)
        if together not in self.together:
            self._build_reference()
            with tempfile.TemporaryDirectory() as text:
                engines = []
                for number, make in enumerate(makers):
                    folder = Path(text) / str(number)
                    folder.mkdir()
                    done = self._engine(make(), folder)
                    if done is None:
                        raise CompileError("The compiler refuses a candidate that it took before in this search.")
                    engines.append(done.path)
                self.together[together] = self.clock.measure_together(engines)
            self.state.save(self.found)
        return self.together[together]

    def _is_known(self, digest: str | None) -> bool:
        if digest not in self.reports:
            return False
        return self.clock is None or self.reports[digest] is None or digest in self.seconds

    def _build_reference(self) -> None:
        """Let the clock have its reference, once in a run."""
        if self.clock is None or self.reference is None:
            return
        make, self.reference = self.reference, None
        model = make()
        self._build(model, digest_of(model), self.clock.start)

    def _build(
        self, model: "ir.Model", digest: str, measure: Callable[[Path, float | None], float] | None = None
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            done = self._engine(model, Path(folder))
            if done is not None and self.clock is not None:
                known = self.seconds.get(digest)
                self.seconds[digest] = self.clock.measure(done.path) if measure is None else measure(done.path, known)
            self.reports[digest] = None if done is None else done.report.to_dict()

    def _engine(self, model: "ir.Model", folder: Path) -> CompileResult | None:
        """Write a candidate into a folder and compile it there; ``None`` if the compiler refuses it."""
        import onnx_ir as ir

        self.count += 1
        path = folder / "candidate.onnx"
        large = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
        ir.save(model, path, external_data="candidate.onnx.data" if large > _ONE_FILE_BYTES else None)
        return self._compiled(path, folder / "candidate.engine")

    def _compiled(self, path: Path, engine: Path) -> CompileResult | None:
        for may_repeat in (True, False):
            try:
                return compile_onnx(path, engine, progress=False, **self.settings)
            except CompileError as error:
                # A crash may come from outside, such as a system out of memory; a refusal would come again.
                if not (may_repeat and isinstance(error.__cause__, CompilerEndedError)):
                    return None
        return None
