"""Plans: find matches, decide between them, apply them and report the outcome."""

from embedl_deploy.plan.plan import TransformationPlan
from embedl_deploy.plan.report import TransformationReport
from embedl_deploy.plan.result import TransformationResult

__all__ = ["TransformationPlan", "TransformationReport", "TransformationResult"]
