"""Compares every stage of a model with the original, and finds the layer that goes wrong."""

from embedl_deploy.stages.layers import LayerDifference
from embedl_deploy.stages.rewrites import RewriteDifference
from embedl_deploy.stages.verification import StageDifference, Verification, verify_stages

__all__ = ["LayerDifference", "RewriteDifference", "StageDifference", "Verification", "verify_stages"]
