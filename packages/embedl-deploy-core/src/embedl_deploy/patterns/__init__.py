"""The pattern language: what to find in a graph, and what to replace it with."""

from embedl_deploy.graph import (
    arguments_by_name,
    dtype_of,
    get_module,
    has_hooks,
    is_in_place,
    operation,
    resolve_module,
    shape_of,
)
from embedl_deploy.patterns.collection import patterns_in
from embedl_deploy.patterns.example_modules import Applied, Tapped
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matcher import match_tree
from embedl_deploy.patterns.matches import Declined, Matches, MatchStatus, PatternMatch
from embedl_deploy.patterns.pattern import Pattern, validate_pattern
from embedl_deploy.patterns.points import QDQPoint
from embedl_deploy.patterns.replacement import claim_container, insert_call, replace_match, replace_tree, sources_of
from embedl_deploy.patterns.reshaping import share_reshaped
from embedl_deploy.patterns.tree import Fork, Wildcard
from embedl_deploy.patterns.tree_match import ForkMatch, TreeMatch, WildcardMatch

__all__ = [
    "Applied",
    "Declined",
    "Example",
    "Fork",
    "ForkMatch",
    "MatchStatus",
    "Matches",
    "Pattern",
    "PatternMatch",
    "QDQPoint",
    "Tapped",
    "TreeMatch",
    "Wildcard",
    "WildcardMatch",
    "arguments_by_name",
    "claim_container",
    "dtype_of",
    "get_module",
    "has_hooks",
    "insert_call",
    "is_in_place",
    "match_tree",
    "operation",
    "patterns_in",
    "replace_match",
    "replace_tree",
    "resolve_module",
    "shape_of",
    "share_reshaped",
    "sources_of",
    "validate_pattern",
]
