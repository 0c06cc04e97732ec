"""What counts as a loss of the outputs."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch


class Metric(ABC):
    """A quadratic measure of an error in the outputs, δᵀ·M·δ, and how it is told.

    Where an output is −∞, as a mask leaves logits, it has neither signal nor noise, and probability 0.

    Attributes:
        name: What reports and JSON call it.
        unit: Of its values.
    """

    name: str
    unit: str

    @abstractmethod
    def probe(self, output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A random tensor of the shape of an output, with mean 0 and covariance M at the exact ``output``."""

    @abstractmethod
    def energy(self, exact: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
        """δᵀ·M·δ of outputs that are known, summed over all samples."""

    @abstractmethod
    def scale(self, exact: Sequence[torch.Tensor]) -> float:
        """What energies are compared with, summed over all samples."""

    @abstractmethod
    def value(self, energy: float, scale: float) -> float:
        """The value that is told."""


class Sqnr(Metric):
    """Signal to quantization noise of the outputs, 10·log₁₀(Σ y² / Σ δ²), in dB: more is better."""

    name, unit = "sqnr", "dB"

    def probe(self, output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Signs: of all distributions the one with the least variance of the estimate."""
        signs = torch.randint(0, 2, output.shape, generator=generator, dtype=torch.int8)
        return (2 * signs - 1).to(output).masked_fill(output.detach().isinf(), 0)

    def energy(self, exact: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
        """Σ δ²."""
        pairs = zip(exact, other, strict=True)
        return sum(float((y.double() - x.double())[x.isfinite()].square().sum()) for x, y in pairs)

    def scale(self, exact: Sequence[torch.Tensor]) -> float:
        """Σ y²."""
        return sum(float(x[x.isfinite()].double().square().sum()) for x in exact)

    def value(self, energy: float, scale: float) -> float:
        """In dB; infinite where there is no noise."""
        if energy <= 0:
            return math.inf
        return 10 * math.log10(scale / energy) if scale > 0 else -math.inf


class KullbackLeibler(Metric):
    """Divergence of the softmax over the last axis from the exact one, in nats for each position: less is better.

    For small errors of the logits, KL = ½·δᵀ·(diag(p) − p·pᵀ)·δ (the Fisher matrix of a softmax).
    """

    name, unit = "kl", "nats"

    def probe(self, output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """√p·ε − p·Σ√p·ε, whose covariance is diag(p) − p·pᵀ."""
        p = output.detach().softmax(-1)
        signs = (2 * torch.randint(0, 2, p.shape, generator=generator, dtype=torch.int8) - 1).to(p)
        spread = p.sqrt() * signs
        return spread - p * spread.sum(-1, keepdim=True)

    def energy(self, exact: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
        """Twice the divergence, summed over positions."""
        total = 0.0
        for x, y in zip(exact, other, strict=True):
            log_p, log_q = (z.detach().double().log_softmax(-1) for z in (x, y))
            total += 2 * float((log_p.exp() * (log_p - log_q)).masked_fill(log_p.isneginf(), 0).sum())
        return total

    def scale(self, exact: Sequence[torch.Tensor]) -> float:
        """The number of positions."""
        return float(sum(x.numel() // x.shape[-1] if x.dim() else 1 for x in exact))

    def value(self, energy: float, scale: float) -> float:
        """The mean divergence."""
        return energy / 2 / scale if scale else 0.0


METRICS: dict[str, Metric] = {metric.name: metric for metric in (Sqnr(), KullbackLeibler())}
