"""What is done to every block, and with which batches."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from embedl_deploy.errors import InputError
from embedl_deploy.graph.fingerprint import tensors_fingerprint
from embedl_deploy.graph.inputs import tensors_in
from embedl_deploy.numerics.selectors import Selector
from embedl_deploy.quantize.accuracy.held_back import SAMPLES, whole_runs_held_back
from embedl_deploy.quantize.accuracy.smoothing import SmoothQuantConfig
from embedl_deploy.quantize.calibration.recorded_inputs import Inputs, samples_in
from embedl_deploy.quantize.placing.decisions import Decision


@dataclass(frozen=True)
class Settings:
    """What is done to every block.

    Attributes:
        decisions: What becomes of each point of the model.
        policy: Name of the policy that was asked.
        smoothing: How to smooth; ``None`` not to.
        exceptions: Selectors of layer norms and products that are not smoothed.
        bias_correction: Whether to correct biases.
        learned_rounding: Whether to learn the rounding of weights, and correct biases.
    """

    decisions: tuple[Decision, ...]
    policy: str
    smoothing: SmoothQuantConfig | None
    exceptions: tuple[Selector, ...]
    bias_correction: bool
    learned_rounding: bool

    @property
    def corrects(self) -> bool:
        """Whether weights or biases are corrected, by what quantized values flow into a layer."""
        return self.bias_correction or self.learned_rounding

    def require_possible(self, data: Any) -> None:
        """Refuse what needs data that is not there.

        Raises:
            InputError: There is such a thing.
        """
        asked = {
            "smooth_quant": self.smoothing is not None,
            "bias_correction": self.bias_correction,
            "learned_rounding": self.learned_rounding,
        }
        reading = [name for name, wanted in asked.items() if wanted]
        if data is None and reading:
            raise InputError(f"{reading[0]} needs calibration data, which was not passed: quantize_shards(..., data).")

    def fingerprint(self) -> str:
        """SHA-256 over all that has to do with the result."""
        plain: list[Any] = [
            (d.point.node.name, d.point.path, d.point.label, None if d.config is None else d.config.to_dict())
            for d in self.decisions
        ]
        smoothing = None if self.smoothing is None else [self.smoothing.alpha, self.smoothing.explicit]
        methods = [smoothing, list(map(str, self.exceptions)), self.bias_correction, self.learned_rounding]
        return hashlib.sha256(json.dumps([plain, methods], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Runs:
    """Numbers of batches.

    Attributes:
        all: Of all.
        learned: Of those that corrections learn from.
        judged: Of those that they are judged by; the same if there is one batch.
    """

    all: tuple[int, ...]
    learned: tuple[int, ...]
    judged: tuple[int, ...]

    @property
    def recorded(self) -> tuple[int, ...]:
        """Of the first samples, which are learned from or judged by."""
        return tuple(sorted({*self.learned, *self.judged}))

    @property
    def beyond(self) -> tuple[int, ...]:
        """Of all others."""
        recorded = set(self.recorded)
        return tuple(number for number in self.all if number not in recorded)

    @staticmethod
    def of(batches: Sequence[int]) -> "Runs":
        """Which of some batches are held back, by how many samples each has."""
        room, recorded = SAMPLES, list[Inputs]()
        for number, samples in enumerate(batches):
            if room > 0:
                recorded.append(((number,), {}))
                room -= samples
        held_back = whole_runs_held_back(recorded)
        learned, judged = (tuple(args[0] for args, _ in runs) for runs in (held_back.learned, held_back.judged))
        return Runs(tuple(range(len(batches))), learned, judged)


def samples_of(values: tuple[Any, ...]) -> int:
    """How many samples a model's inputs have."""
    return samples_in((values, {}))


def fingerprint_of_inputs(inputs: Iterable[tuple[Any, ...]]) -> str:
    """SHA-256 over the values of all inputs."""
    digest = hashlib.sha256()
    for values in inputs:
        digest.update(tensors_fingerprint((str(i), x) for i, x in enumerate(tensors_in(values))).encode())
    return digest.hexdigest()
