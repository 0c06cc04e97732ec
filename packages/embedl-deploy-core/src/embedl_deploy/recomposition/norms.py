"""(x − mean(x)) / √(var(x) + ε) · w + b, written out  becomes  LayerNorm;  x / √(mean(x²) + ε) · w  becomes  RMSNorm.

    c = x - x.mean(-1, keepdim=True)
    c / torch.sqrt(c.pow(2).mean(-1, keepdim=True) + eps) * w + b      WrittenLayerNorm
    either over the channels of an image, dim=1                        LayerNorm2d, RMSNorm2d
    x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * w       WrittenRMSNorm
    h = x.float(); w * (h * torch.rsqrt(…)).to(x.dtype)                WrittenRMSNorm(upcast=torch.float32)

They are ``LayerNorm`` and ``RMSNorm`` to every pattern. Squares, roots and variances may be written in any way;
a weight may be computed from parameters, as 1 + w. Upcasts stay what the author wrote; what is normalized in float16 is
normalized as ``torch.nn`` does it, in float32 inside.

Declined: a variance that divides by N − 1; a tensor that is divided by its standard deviation with its mean; axes that
are neither the last nor the channels; a size that neither a weight nor a layer before fixes; what is used elsewhere on
the way. An ε outside the root is not a norm of torch.nn.
"""

import torch
from torch import fx

from embedl_deploy.graph.fixed_sizes import size_is_fixed
from embedl_deploy.graph.index import call_index
from embedl_deploy.graph.state_values import value_of_state
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matcher import outside_use
from embedl_deploy.patterns.matches import Declined, Matches, PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import replace_match
from embedl_deploy.patterns.state_tensors import insert_at_state, only_read_by, set_from_state
from embedl_deploy.patterns.tree_match import TreeMatch
from embedl_deploy.recomposition import norm_examples
from embedl_deploy.recomposition.norm_reading import Norm, read_norm
from embedl_deploy.recomposition.statistics import NoNormError


class RecomposeNormPattern(Pattern):
    """LayerNorm and RMSNorm written out, as one module."""

    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return norm_examples.examples()

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return norm_examples.near_misses()

    def match(self, graph_module: fx.GraphModule) -> Matches:
        """Look around every square root."""
        found: list[PatternMatch] = []
        declined: list[Declined] = []
        for root in call_index(graph_module.graph).functional:
            try:
                norm = read_norm(root)
            except NoNormError as error:
                declined.append(Declined(self.name, (root.name,), str(error)))
                continue
            if norm is None:
                continue
            reason = outside_use(norm.nodes) or _unfixed(norm)
            if reason is None:
                own = only_read_by(norm.state, norm.nodes)
                inner = [each for each in own if each.op != "get_attr"]
                found.append(PatternMatch(self, TreeMatch((*sorted([*inner, *norm.nodes[:-1]]), norm.nodes[-1]))))
            else:
                declined.append(Declined(self.name, tuple(node.name for node in norm.nodes), reason))
        return Matches(found, declined)

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there."""
        norm = next(norm for node in pattern_match.nodes if (norm := _read_or_none(node)) is not None)
        module = norm.module()
        sources = {}
        for name, source in (("weight", norm.weight), ("bias", norm.bias)):
            if source is not None:
                as_it_is = tuple(value_of_state(source).shape) == norm.shape
                sources[name] = (source,) if as_it_is else (source, torch.reshape, norm.shape)
        set_from_state(pattern_match, module, sources)
        if not norm.over_channels:
            module.elementwise_affine = norm.weight is not None  # type: ignore[assignment]  # it is a flag
        name = "layer_norm" if norm.normalized.centred else "rms_norm"
        call = insert_at_state(pattern_match, module, norm.normalized.spread.source, norm.state, name)
        replace_match(pattern_match, call)
        return [call]


def _read_or_none(root: fx.Node) -> Norm | None:
    try:
        return read_norm(root)
    except NoNormError:
        return None


def _unfixed(norm: Norm) -> str | None:
    """Why the sizes of the normalized axes may be others in another call, if neither a weight nor a layer fixes them.

    A weight of one value is broadcast, so it fixes none.
    """
    assert norm.shape is not None  # it has been read
    value = norm.normalized.nodes[-1]
    for axis, size in zip(norm.normalized.axes, norm.shape, strict=True):
        if (norm.weight is None or size == 1) and not size_is_fixed(value, axis):
            return f"the size of axis {axis} is {size} in the example, and no weight or layer fixes it for other calls"
    return None
