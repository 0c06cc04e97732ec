"""What a pattern is: a tree to find, a module to put in its place, and where quantizers go."""

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from torch import fx, nn

from embedl_deploy.errors import PatternError
from embedl_deploy.modules.base import FusedModule
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.graft import check_graft_arguments, graft_match, graft_of
from embedl_deploy.patterns.matcher import match_tree
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.points import QDQPoint
from embedl_deploy.patterns.tree import CompiledTree, compile_tree
from embedl_deploy.validation.checked import checked


class Pattern:
    """A pattern: what to find and what to replace it with.

    Declaring ``tree``, ``qdq_points`` and ``graft`` makes a complete fusion pattern. A conversion sets
    ``is_conversion`` and usually defines :meth:`replace`, with :meth:`check` for what the tree cannot say.

    Attributes:
        tree: The elements to match, in the order in which data flows.
        qdq_points: Where quantizers may be placed around the replacement; empty for none.
        is_conversion: Conversions run first, again and again until none matches any more; fusions run once.
        graft: The module class (or a ``staticmethod``) that is called with the matched modules to make the
            replacement.
        origin: Distribution and version that ship it, for messages; set when a backend is loaded, empty otherwise.
    """

    tree: ClassVar[Any] = None
    qdq_points: ClassVar[Collection[QDQPoint]] = frozenset()
    is_conversion: ClassVar[bool] = False
    graft: ClassVar[Callable[..., nn.Module] | None] = None
    origin: str = ""

    @property
    def name(self) -> str:
        """The name under which plans and reports list the pattern: the class name, unless overridden."""
        return type(self).__name__

    @property
    def is_grafted(self) -> bool:
        """Whether the graft takes a match's place, and no ``replace`` of the pattern's own."""
        return type(self).replace is Pattern.replace

    def examples(self) -> Sequence[Example]:
        """Small models in each of which the pattern matches exactly once, made again at each call."""
        return ()

    def near_misses(self) -> Sequence[Example]:
        """Small models that look as if it matched and in which it must not, made again at each call."""
        return ()

    @checked
    def match(self, graph_module: fx.GraphModule) -> list[PatternMatch]:
        """Find every place where the pattern fits. Must not change the graph."""
        return match_tree(graph_module, pattern=self)

    def check(self, match: PatternMatch) -> str | None:
        """Why a place where the tree fits must be left alone, or ``None`` to take it.

        Called while matching; it must not change the graph. The reason appears in the report: write what was found
        and what is needed, for example ``"kernel is 5x5; the engine has 3x3"``.
        """
        return None

    @checked
    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Rewrite one match, and return the new nodes. The default puts the graft there.

        Everything raised here undoes the whole rewrite of this match. It must not write to the values of existing
        parameters: build new modules around them.
        """
        return graft_match(pattern_match)

    def compiled_tree(self) -> CompiledTree:
        """The tree, read and checked.

        Raises:
            PatternError: The pattern has no tree, or one that is not well formed.
        """
        return _compiled_tree(self.tree_key())

    def tree_key(self) -> "_TreeKey":
        """What the compiled tree is remembered by."""
        return _TreeKey(self.tree, self.name)

    def __repr__(self) -> str:
        return f"{self.name}()"


class _TreeKey:
    """Identity of a tree: trees hold predicates and tuples that need not be hashable."""

    def __init__(self, tree: Any, name: str) -> None:
        self.tree, self.name = tree, name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TreeKey) and self.tree is other.tree and self.name == other.name

    def __hash__(self) -> int:
        return hash((id(self.tree), self.name))


@lru_cache(maxsize=1024)
def _compiled_tree(key: _TreeKey) -> CompiledTree:
    if key.tree is None:
        raise PatternError(
            f"Pattern {key.name!r} declares no tree. Declare tree = (nn.Conv2d, nn.ReLU) or the like, "
            "or define match()."
        )
    return compile_tree(key.tree, f"Pattern {key.name!r}")


def validate_pattern(pattern: Any) -> None:
    """Check a pattern as far as possible without a model.

    Raises:
        PatternError: It is not a pattern instance, has no tree and no ``match``, no graft and no ``replace``, its
            graft cannot be called with what the tree gives, or is a module without one of the ``qdq_points``.
    """
    if isinstance(pattern, type) and issubclass(pattern, Pattern):
        raise PatternError(f"{pattern.__name__} is a class; pass an instance: {pattern.__name__}().")
    if not isinstance(pattern, Pattern):
        raise PatternError(f"{pattern!r} is not an embedl_deploy.patterns.Pattern.")
    own_match = type(pattern).match is not Pattern.match
    tree = None if own_match and pattern.tree is None else pattern.compiled_tree()
    points: object = pattern.qdq_points
    if isinstance(points, str) or not isinstance(points, Collection):
        raise PatternError(
            f"Pattern {pattern.name!r}: qdq_points is {points!r}; expected a set of QDQPoint members, such "
            "as frozenset({QDQPoint.INPUT})."
        )
    for point in pattern.qdq_points:
        if not isinstance(point, QDQPoint):
            raise PatternError(f"Pattern {pattern.name!r}: qdq_points holds {point!r}; expected QDQPoint members.")
    _check_points(pattern)
    if type(pattern).replace is not Pattern.replace:
        return
    graft = graft_of(pattern)
    if graft is None:
        raise PatternError(f"Pattern {pattern.name!r} declares neither graft nor replace(). Declare one of them.")
    if not callable(graft):
        raise PatternError(f"Pattern {pattern.name!r}: graft is {graft!r}; expected a module class or a function.")
    count = None if tree is None else tree.graft_arguments()
    if count is not None:
        check_graft_arguments(pattern.name, graft, (None,) * count)


def _check_points(pattern: Pattern) -> None:
    """Raise if ``qdq_points`` names an input for which the module that the graft makes has no place."""
    graft = graft_of(pattern)
    if type(pattern).replace is not Pattern.replace or not isinstance(graft, type):
        return  # what is placed is known for a match only
    positions: object = graft.inputs_to_quantize if issubclass(graft, FusedModule) else None
    if not isinstance(positions, Collection) or getattr(graft, "why_not_quantized", None) is not None:
        return
    for point in sorted(pattern.qdq_points, key=lambda each: each.value):
        if point.position is not None and point.position not in positions:
            held = ", ".join(map(str, sorted(positions)))
            raise PatternError(
                f"Pattern {pattern.name!r}: qdq_points names {point.name}, argument {point.position} of the call, but "
                f"inputs_to_quantize of {graft.__name__} is {{{held}}}; the point would never be quantized. Make both "
                "name the same arguments."
            )
