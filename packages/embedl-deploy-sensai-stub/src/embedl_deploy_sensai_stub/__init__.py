"""A backend for Lattice sensAI, a small CNN engine on low-power FPGAs. See the README for what is assumed."""

from embedl_deploy_sensai_stub.groups import SENSAI_CONVERSION_PATTERNS, SENSAI_FUSION_PATTERNS, SENSAI_PATTERNS

__all__ = ["SENSAI_CONVERSION_PATTERNS", "SENSAI_FUSION_PATTERNS", "SENSAI_PATTERNS"]
