"""Verification: compares the outputs of two models."""

from embedl_deploy.verify.difference import (
    Difference,
    compare_models,
    difference,
    output_tensors,
    run_unchanged,
    signal_to_noise,
)
from embedl_deploy.verify.state import state_kept

__all__ = [
    "Difference",
    "compare_models",
    "difference",
    "output_tensors",
    "run_unchanged",
    "signal_to_noise",
    "state_kept",
]
