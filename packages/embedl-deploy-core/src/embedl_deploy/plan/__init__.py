"""Plans: finding rewrites, deciding between them, making them, and telling what happened."""

from embedl_deploy.plan.plan import TransformationPlan
from embedl_deploy.plan.report import TransformationReport

__all__ = ["TransformationPlan", "TransformationReport"]
