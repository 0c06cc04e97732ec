"""Verification: do the numbers agree?"""

from embedl_deploy.verify.difference import (
    Difference,
    compare_models,
    difference,
    output_tensors,
    run_unchanged,
    signal_to_noise,
)

__all__ = ["Difference", "compare_models", "difference", "output_tensors", "run_unchanged", "signal_to_noise"]
