"""A model in float16 as PyTorch computes it, and where its numbers leave the range."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from embedl_deploy.errors import ExportError
from embedl_deploy.export.judged import Run
from embedl_deploy.export.out_of_range import OutOfRange, places_not_finite, run_watched
from embedl_deploy.export.reference import Reference
from embedl_deploy.export.runtime import first_not_finite
from embedl_deploy.verify import difference


class InFloat16:
    """A model in float16 as PyTorch computes it, operator by operator."""

    def __init__(
        self, exported: Run, exact: nn.Module, users: Run, reference: Reference, constants: Sequence[str]
    ) -> None:
        self.exported, self.exact, self.users = exported, exact, users
        self.reference, self.constants = reference, constants
        self.originals = dict((*exact.named_parameters(), *exact.named_buffers()))
        self.originals |= {f"input {index}": tensor for index, tensor in enumerate(users.tensors())}

    def refuse_what_leaves_the_range(self, path: Path, found: list[torch.Tensor], *, right: bool) -> None:
        """Look where numbers leave the range of the type, if the outputs of PyTorch or of the file are not right.

        Raises:
            ExportError: They do.
        """
        reference = self.reference
        computed, left = self._run()
        if computed is not None and not reference.accepts(computed):
            if left is None:
                _, left = self._run(closely=True)
            if left is not None or not reference.all_finite(computed):
                raise ExportError(self._out_of_range(computed, left))
            if right:
                reference.notes.append(
                    "When PyTorch computes the model in float16, the outputs differ by rounding alone "
                    f"({difference(reference.wanted, computed)}); no value leaves the range of float16."
                )
        if not reference.all_finite(found):
            left = left or first_not_finite(path, self.exported.tensors())
            raise ExportError(self._out_of_range(found, left))

    def _run(self, *, closely: bool = False) -> tuple[list[torch.Tensor] | None, OutOfRange | None]:
        """The outputs, and where numbers leave the range."""
        run, users = self.exported, self.users
        try:
            with run.floats:
                given = (run.model, run.args, run.kwargs, self.originals)
                computed, left = run_watched(*given, closely=closely)
                if left is not None and left.largest is None:  # is it so in the model's own types?
                    ordinary = places_not_finite(self.exact, users.args, users.kwargs)
                    computed, left = run_watched(*given, ordinary=ordinary, closely=closely)
            return computed, left
        except Exception as error:  # noqa: BLE001 - the user's code, in a type that PyTorch may have no kernels for here
            self.reference.notes.append(
                "PyTorch cannot run the model in float16 here, so only the file was compared "
                f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'})."
            )
            return None, None

    def _out_of_range(self, found: list[torch.Tensor], left: OutOfRange | None) -> str:
        finite = self.reference.all_finite(found)
        how = f"are wrong ({difference(self.reference.wanted, found)})" if finite else "are not finite"
        where = str(left) if left is not None else "a value is infinite or NaN, and it is not known where"
        return (
            f"The model does not fit into float16: {where}. The outputs {how} in float16, but correct in the model's "
            f"own types. Nothing was written. {listed(self.constants)}Keep such places in float32: "
            "embedl_deploy.float16.keep_in_float32(result, data); or export in torch.bfloat16, which has the range of "
            "float32."
        )


def listed(constants: Sequence[str]) -> str:
    """What became of constants, as sentences before another."""
    return "".join(f"{each} " for each in constants)
