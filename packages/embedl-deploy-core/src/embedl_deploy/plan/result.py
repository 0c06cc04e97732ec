"""The result of a transformation, and its comparison with the original model."""

from dataclasses import dataclass
from typing import Any, NoReturn

from torch import fx

from embedl_deploy.graph.inputs import require_one_by_one
from embedl_deploy.plan.refusing import refuse_storing
from embedl_deploy.plan.report import TransformationReport
from embedl_deploy.plan.state import MatchTable
from embedl_deploy.validation.checked import checked
from embedl_deploy.verify import Difference, compare_models


@checked
@dataclass(frozen=True, eq=False)
class TransformationResult:
    """A transformed model with its report.

    Attributes:
        model: The transformed model.
        matches: Every match that was found, by node and pattern name, with what became of it.
        report: What was done and what was not; print it.
    """

    model: fx.GraphModule
    matches: MatchTable
    report: TransformationReport

    def __reduce__(self) -> NoReturn:
        refuse_storing(self)

    def to_dict(self) -> dict[str, Any]:
        """The report in plain values, for JSON."""
        return self.report.to_dict()

    def to_html(self) -> str:
        """The report as a page that needs nothing else; :func:`embedl_deploy.page.write_page` joins several."""
        return self.report.to_html()

    @checked
    def verify(self, *args: Any, **kwargs: Any) -> Difference:
        """Run the user's model and the transformed one on the same inputs, and compare.

        Neither model changes, not even running statistics in training mode; the random state is put back.

        Args:
            *args: Inputs, as the model is called.
            **kwargs: Keyword inputs.

        Returns:
            The largest absolute difference, and the same relative to the largest output.

        Raises:
            InputError: The user's model cannot be run on them.
            FusedModuleError: A module that a pattern put there raises, or gives something else than what it replaced.
        """
        original = self.report.plan.original
        require_one_by_one(original, args, kwargs, "verify")
        return compare_models(original, self.model, args, kwargs)
