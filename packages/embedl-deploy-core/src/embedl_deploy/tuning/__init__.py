"""Tuning: the compiler's own engines decide where to quantize."""

from embedl_deploy.tuning.api import tune
from embedl_deploy.tuning.decisions import TunedPolicy
from embedl_deploy.tuning.report import Trial, TuneResult

__all__ = ["Trial", "TuneResult", "TunedPolicy", "tune"]
