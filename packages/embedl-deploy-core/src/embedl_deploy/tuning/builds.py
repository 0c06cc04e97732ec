"""Engines of candidates: each file is built once, whatever it is called and in whichever run."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedl_deploy.compiling import compile as compile_onnx
from embedl_deploy.compiling.guarded import CompilerEndedError
from embedl_deploy.engine import EngineReport
from embedl_deploy.errors import CompileError
from embedl_deploy.state_file import StateFile
from embedl_deploy.tuning.file_digest import digest_of

if TYPE_CHECKING:
    import onnx_ir as ir

#: Constants beyond this are in a file of their own: protobuf ends at 2 GB.
_ONE_FILE_BYTES = 10**9


class Builds:
    """Builds engines.

    Args:
        settings: Arguments of :func:`embedl_deploy.compile`.
        state: Where reports are kept.
        found: What the state holds; new reports are added.
    """

    def __init__(self, settings: dict[str, Any], state: StateFile, found: dict[str, Any]) -> None:
        self.settings, self.state, self.found = settings, state, found
        self.digests: dict[str, str] = found.setdefault("files", {})
        self.reports: dict[str, Any] = found.setdefault("reports", {})
        self.count = 0

    def report(self, key: str, make: Callable[[], "ir.Model"]) -> EngineReport | None:
        """The report of a candidate's engine; ``None`` if the compiler refuses it.

        Args:
            key: Names the candidate in every run.
            make: Makes its file's model; called where the candidate is not known yet.
        """
        if key not in self.digests or self.digests[key] not in self.reports:
            model = make()
            digest = self.digests[key] = digest_of(model)
            if digest not in self.reports:
                self.count += 1
                self.reports[digest] = self._built(model)
            self.state.save(self.found)
        plain = self.reports[self.digests[key]]
        return None if plain is None else EngineReport.from_dict(plain)

    def _built(self, model: "ir.Model") -> dict[str, Any] | None:
        import onnx_ir as ir

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "candidate.onnx"
            large = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
            ir.save(model, path, external_data="candidate.onnx.data" if large > _ONE_FILE_BYTES else None)
            engine = Path(folder) / "candidate.engine"
            for may_repeat in (True, False):
                try:
                    return compile_onnx(path, engine, progress=False, **self.settings).report.to_dict()
                except CompileError as error:
                    # A crash may come from outside, such as a system out of memory; a refusal would come again.
                    if not (may_repeat and isinstance(error.__cause__, CompilerEndedError)):
                        return None
        return None
