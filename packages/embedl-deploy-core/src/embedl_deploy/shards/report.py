"""What became of a model that was quantized from shards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedl_deploy.files import size_in_words
from embedl_deploy.quantize.reporting.report import QuantizationReport
from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True)
class BlockReport:
    """One block.

    Attributes:
        name: The layers in it.
        file: Name of the file with its weights.
        bytes_in_memory: Size of its weights, as the model has them.
        bytes_written: Size of what was written.
        seconds: How long it took; 0 for one that an earlier run did.
    """

    name: str
    file: str
    bytes_in_memory: int
    bytes_written: int
    seconds: float


@checked
@dataclass(frozen=True)
class ShardsReport:
    """A quantized model in a folder.

    Attributes:
        folder: Where it is; :func:`load_quantized` reads it.
        blocks: In the order in which they were quantized.
        quantization: What became of each point, with corrections and findings.
    """

    folder: Path
    blocks: tuple[BlockReport, ...]
    quantization: QuantizationReport

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "folder": str(self.folder),
            "blocks": [dict(vars(block)) for block in self.blocks],
            "quantization": self.quantization.to_dict(),
        }

    def __str__(self) -> str:
        read, written = sum(b.bytes_in_memory for b in self.blocks), sum(b.bytes_written for b in self.blocks)
        largest = max(self.blocks, key=lambda block: block.bytes_in_memory)
        head = (
            f"{len(self.blocks)} blocks, {size_in_words(read)} of weights to {size_in_words(written)}; the largest, "
            f"{largest.name}, has {size_in_words(largest.bytes_in_memory)}"
        )
        return f"{head}\n{self.quantization}"
