"""Plans: finding rewrites, deciding between them, making them, and telling what happened."""

from embedl_deploy.plan.plan import TransformationPlan
from embedl_deploy.plan.report import TransformationReport
from embedl_deploy.plan.result import TransformationResult

__all__ = ["TransformationPlan", "TransformationReport", "TransformationResult"]
