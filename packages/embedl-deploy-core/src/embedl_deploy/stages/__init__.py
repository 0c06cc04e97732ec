"""How far every stage of a model is from the original, and at which layer it goes wrong."""

from embedl_deploy.stages.layers import LayerDifference
from embedl_deploy.stages.rewrites import RewriteDifference
from embedl_deploy.stages.verification import StageDifference, Verification, verify_stages

__all__ = ["LayerDifference", "RewriteDifference", "StageDifference", "Verification", "verify_stages"]
