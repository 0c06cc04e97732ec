"""What is known of an ONNX file that has been written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embedl_deploy.files import size_in_words
from embedl_deploy.validation.checked import checked
from embedl_deploy.verify import Difference


@checked
@dataclass(frozen=True)
class OnnxExport:
    """A written ONNX file.

    Attributes:
        path: Where it is.
        opset: Version of the ONNX operator set.
        input_names: Names of the graph's inputs, in order.
        output_names: Names of its outputs, in order.
        size: Bytes of the file and of its external weights.
        difference: How far ONNX Runtime's outputs are from those of the model that was given, in its own types and with
            its quantizers, on the example inputs; ``None`` if that was not measured.
        sqnr: The same as a ratio, 10·log₁₀(Σ y² / Σ (y' − y)²) over all outputs, in dB; infinite where nothing differs,
            ``None`` if that was not measured.
        notes: What to know about it: plugins that translate one operator differently; constants that its type does not
            hold, and what they are in it; sizes that it is not for, open as they are; outputs that are as far off as
            rounding alone explains, ties.
        shapes: For each input with open dimensions its smallest, usual and largest shape, as :func:`compile` takes
            them: the limits of ``torch.export.Dim``, one where there is no lower limit, and the example's size where
            there is no upper one.
    """

    path: Path
    opset: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    size: int
    difference: Difference | None
    sqnr: float | None = None
    notes: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        """A line for the file, and one for each note."""
        ran = "not run" if self.difference is None else f"ONNX Runtime against PyTorch: {self.difference}"
        first = f"Wrote {self.path}: {size_in_words(self.size)}, operator set {self.opset}; {ran}"
        return "\n".join((first, *self.notes))
