"""A plan: all decisions about a model, which can be read and changed before they are applied."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from embedl_deploy.errors import PlanError
from embedl_deploy.patterns import MatchStatus, PatternMatch
from embedl_deploy.patterns.causes import SWITCHED_OFF
from embedl_deploy.plan.causes import Answer
from embedl_deploy.plan.preparing import Prepared
from embedl_deploy.plan.refusing import refuse_storing
from embedl_deploy.plan.serialization import plan_to_json
from embedl_deploy.plan.state import PlanState
from embedl_deploy.plan.tables import plan_table
from embedl_deploy.plan.why_not import answers, matches_touching, no_match_at
from embedl_deploy.validation.checked import checked


@checked
@dataclass(eq=False)
class TransformationPlan(PlanState):
    """The possible rewrites of a model, and why the rest is left alone.

    Attributes:
        captured: The captured graph before any rewrite; ``model`` is made from it.
        matches: For each node at which matches end, the matches by pattern name, conversions first. Node names are
            those of the graph at the time of the match: fusions see the converted graph.
        declined: Places where a pattern's tree fits but must not be applied, with the reason.
        patterns: The patterns, in order of priority.
        backend: The backend that they came from, if they came from one.
        capture_method: ``"symbolic"``, ``"export"`` or ``"given"``.
        notes: What the user should know about how the model was captured.
        original: The user's model, to compare with.
        applied: Whether the plan was carried out; it can be only once.
    """

    def __reduce__(self) -> NoReturn:
        refuse_storing(self)

    def take_prepared(self) -> Prepared | None:
        """Hand over the graph that was prepared while planning; it is gone from the plan then."""
        prepared, self._prepared = self._prepared, None
        self.__dict__.pop("converted", None)
        return prepared

    @checked
    def get(self, node_name: str, pattern_name: str) -> PatternMatch:
        """The match of a pattern that ends at a node.

        Raises:
            PlanError: There is none; the message lists what there is.
        """
        try:
            return self.matches[node_name][pattern_name]
        except KeyError:
            raise PlanError(no_match_at(self, node_name, pattern_name)) from None

    @checked
    def disable(self, node_name: str, pattern_name: str) -> list[PatternMatch]:
        """Switch matches of a pattern off, and let the matches that they had displaced move up.

        Setting ``match.apply = False`` switches off just that match and leaves its nodes alone.

        Args:
            node_name: The node at which a match ends; or any node that it takes, or the path of a module. The path of a
                container means all matches of the pattern that take something in it.
            pattern_name: The pattern; a further match of it at that node is called ``"Pattern#2"``, and is meant as
                well where the first is off.

        Returns:
            The matches that move up. None, ``[]``, says that nothing else wants those nodes: the matches are off all
            the same, and where there is none to switch off, this raises.

        Raises:
            PlanError: There is no such match; the message lists what there is.
        """
        row = self.matches.get(node_name, {})
        targets = [row[pattern_name]] if pattern_name in row else matches_touching(self, node_name, pattern_name)
        if pattern_name in row and not row[pattern_name].apply:  # one that lost, as "Pattern#2" may be on
            targets += [match for match in row.values() if match.pattern_name == pattern_name and match.apply]
        if not targets:
            raise PlanError(no_match_at(self, node_name, pattern_name))
        return [promoted for target in targets for promoted in self._switch_off(target, targets)]

    def _switch_off(self, target: PatternMatch, others: Sequence[PatternMatch]) -> list[PatternMatch]:
        """Switch one match off; the matches that move up, of which the others that are to go are none."""
        target.apply, target.cause = False, SWITCHED_OFF
        freed = set(target.node_names)
        taken = {name for match in self if match.apply and match.stage == target.stage for name in match.node_names}
        promoted = []
        for match in self._in_priority():
            names = set(match.node_names)
            rival = match.stage == target.stage and match not in others and match.status is not MatchStatus.FAILED
            if rival and names & freed and not names & taken:
                match.apply, match.cause = True, None
                taken |= names
                promoted.append(match)
        return promoted

    def _in_priority(self) -> list[PatternMatch]:
        order = {id(pattern): index for index, pattern in enumerate(self.patterns)}
        return sorted(self, key=lambda match: order.get(id(match.pattern), len(order)))

    @checked
    def why_not(self, node: str, pattern: str | None = None) -> list[str]:
        """Why patterns do not take a node: one line per pattern that could concern it.

        Args:
            node: Name of a node, or path of a module. Of a container, what takes the nodes in it, and why not for each
                node that nothing takes.
            pattern: Only this pattern.

        Raises:
            PlanError: There is no such node, or no such pattern.
        """
        return [str(answer) for answer in self.answers(node, pattern)]

    @checked
    def answers(self, node: str, pattern: str | None = None) -> list[Answer]:
        """The same as :meth:`why_not` for programs: the pattern, a code and the reason, apart."""
        return answers(self, node, pattern)

    def to_json(self) -> str:
        """The plan as JSON text, for review, version control and :func:`load_transformation_plan`."""
        return plan_to_json(self)

    def __str__(self) -> str:
        return plan_table(self)
