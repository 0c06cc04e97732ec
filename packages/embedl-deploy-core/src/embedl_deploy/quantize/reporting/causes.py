"""Why a quantization point is as it is, and why an operation has none."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from torch import fx

from embedl_deploy.graph.every_call import SAME_IN_EVERY_CALL
from embedl_deploy.graph.metadata import NOT_TAKEN
from embedl_deploy.plan.causes import NotTaken

_Kind = TypeVar("_Kind", bound=Enum)
_WITHOUT_HOOKS = (
    "remove them before the model is transformed (handle.remove(); torch.nn.utils.remove_weight_norm, "
    "remove_spectral_norm or prune.remove for what these made)"
)


class WhyPoint(Enum):
    """The kinds of rules that decide about a point; their values are stable, and stand beside the words in JSON.

    Attributes:
        CONFIGURATION: The formats of the configuration, or that it has none for weights or activations.
        OVERRIDE: The same, of an override.
        SKIP: A selector of ``skip``.
        SKIP_WEIGHT: A class of ``skip_weight_quant_for``.
        POLICY: The policy objects to a quantizer here.
        HOOKS: The layer has hooks, which a quantized layer would not run.
        SAME_IN_EVERY_CALL: What the layer computes is a constant.
        INPUTS_IN_FLOAT: The tensor is inside a module of which no input is quantized.
        BLOCKS: The format has scales in blocks, which are for matrix products.
        NOT_WHOLE_BLOCKS: A row of the activation is not a whole number of blocks.
        RECIPE: A recipe, which does not say why.
    """

    CONFIGURATION = "configuration"
    OVERRIDE = "override"
    SKIP = "skip"
    SKIP_WEIGHT = "skip_weight_quant_for"
    POLICY = "policy"
    HOOKS = "hooks"
    SAME_IN_EVERY_CALL = "same_in_every_call"
    INPUTS_IN_FLOAT = "inputs_in_float"
    BLOCKS = "blocks"
    NOT_WHOLE_BLOCKS = "not_whole_blocks"
    RECIPE = "recipe"


@dataclass(frozen=True)
class PointCause:
    """Which rule decided about a point.

    Attributes:
        why: The kind of rule.
        name: The selector, the policy, the part with hooks, or the operator.
        reason: What a policy says, in words.
        without: ``"weights"`` or ``"activations"``, where configuration or override has no format for them.
    """

    why: WhyPoint
    name: str = ""
    reason: str = ""
    without: str = ""

    def __str__(self) -> str:
        match self.why:
            case WhyPoint.CONFIGURATION | WhyPoint.OVERRIDE:
                rule = "configuration" if self.why is WhyPoint.CONFIGURATION else f"override for {self.name}"
                return f"{rule}: {self.without} in float" if self.without else rule
            case WhyPoint.SKIP | WhyPoint.SKIP_WEIGHT:
                return f"{self.why.value}: {self.name}"
            case WhyPoint.POLICY:
                return f"policy {self.name}: {self.reason}"
            case WhyPoint.HOOKS:
                return f"hooks of {self.name} would not run: {_WITHOUT_HOOKS}"
            case WhyPoint.SAME_IN_EVERY_CALL:
                return SAME_IN_EVERY_CALL
            case WhyPoint.INPUTS_IN_FLOAT:
                return "no input of the module is quantized"
            case WhyPoint.BLOCKS:
                return f"scales in blocks are for matrix products, not for {self.name}"
            case WhyPoint.NOT_WHOLE_BLOCKS:
                return f"scales in blocks are for rows of whole blocks: {self.name}"
            case WhyPoint.RECIPE:
                return "the recipe"


class WhyUncovered(Enum):
    """Why an operation has no quantization point; the values are stable, and stand beside the words in JSON.

    Attributes:
        NOT_FUSED: No fusion has taken it; the report of the transformation says more.
        NOT_FUSED_OR_NO_POINT: The same, or a fusion without points has.
        FAILED: A method of a pattern that matches it raised, or gave what it must not.
        SWITCHED_OFF: A pattern matches it, and the plan says that it is not applied.
        DECLINED: A pattern matches it, but the rewrite would be wrong here.
        OVERLAPS: A pattern matches it and other nodes, some of which another rewrite has taken.
        OPTS_OUT: The module says that it is not quantized, and why.
        NO_POINT: A fused module, or its pattern, declares no point for it.
        INNER_GRAPH: It is in a graph inside the graph, into which no pattern looks.
        UNKNOWN: It is from outside torch, and may multiply and accumulate.
        NO_PATTERN: It is from outside torch, and computes products.
        SAME_IN_EVERY_CALL: What it computes is a constant.
        BOUND_BY_MEMORY: Integers would not make it faster.
        ROWS_PICK_WEIGHTS: Each row picks one of several weights while the model runs.
        COMPUTED_WEIGHT: Its weight is computed from what flows in.
    """

    NOT_FUSED = "not_fused"
    NOT_FUSED_OR_NO_POINT = "not_fused_or_no_point"
    FAILED = "failed"
    SWITCHED_OFF = "switched_off"
    DECLINED = "declined"
    OVERLAPS = "overlaps"
    OPTS_OUT = "opts_out"
    NO_POINT = "no_point"
    INNER_GRAPH = "inner_graph"
    UNKNOWN = "unknown"
    NO_PATTERN = "no_pattern"
    SAME_IN_EVERY_CALL = "same_in_every_call"
    BOUND_BY_MEMORY = "bound_by_memory"
    ROWS_PICK_WEIGHTS = "rows_pick_weights"
    COMPUTED_WEIGHT = "computed_weight"


_UNCOVERED = {
    WhyUncovered.NOT_FUSED: "no fusion has taken it",
    WhyUncovered.NOT_FUSED_OR_NO_POINT: "no fusion has taken it, or none with places",
    WhyUncovered.FAILED: "{subject}",
    WhyUncovered.SWITCHED_OFF: "{subject}",
    WhyUncovered.DECLINED: "{subject}",
    WhyUncovered.OVERLAPS: "{subject}",
    WhyUncovered.OPTS_OUT: "{subject}",
    WhyUncovered.NO_POINT: "{subject}",
    WhyUncovered.INNER_GRAPH: "it is computed {subject}, in a graph of its own, into which no pattern looks",
    WhyUncovered.UNKNOWN: "it is from outside torch, and whether it multiplies is not known",
    WhyUncovered.NO_PATTERN: "no pattern knows it, and it computes {subject}",
    WhyUncovered.SAME_IN_EVERY_CALL: SAME_IN_EVERY_CALL,
    WhyUncovered.BOUND_BY_MEMORY: "it {subject}: it is bound by memory, not by arithmetic",
    WhyUncovered.ROWS_PICK_WEIGHTS: (
        "each of its rows picks one of several weights while the model runs, which no integer product does"
    ),
    WhyUncovered.COMPUTED_WEIGHT: (
        "its {subject} is computed from what flows in, so there is none to quantize beforehand"
    ),
}


@dataclass(frozen=True)
class UncoveredCause:
    """Why an operation has no quantization point.

    Attributes:
        why: The kind.
        subject: What the words are about: what a plan or a module says, a name, an operation.
        product: The product that a module computes, where it has no weight by which it is known.
    """

    why: WhyUncovered
    subject: str = ""
    product: str = ""

    def __str__(self) -> str:
        words = _UNCOVERED[self.why].format(subject=self.subject)
        return f"{words} (it computes {self.product})" if self.product else words


def not_taken(node: fx.Node) -> UncoveredCause | None:
    """Why no pattern has taken a node, where the plan knows."""
    told = node.meta.get(NOT_TAKEN)
    return UncoveredCause(WhyUncovered(told.why.value), str(told)) if isinstance(told, NotTaken) else None


def declared_by(opted_out: str | None, otherwise: str) -> UncoveredCause:
    """What a module says of itself or of a part, ``why_not_quantized``; else that it declares no point, in words."""
    return UncoveredCause(*((WhyUncovered.OPTS_OUT, opted_out) if opted_out else (WhyUncovered.NO_POINT, otherwise)))


def recorded_kind(kinds: type[_Kind], entry: Mapping[str, Any]) -> _Kind | None:
    """The kind that JSON has as ``cause``; ``None`` where it has none, or one that only a later release knows."""
    return next((kind for kind in kinds if kind.value == entry.get("cause")), None)
