"""A product with a weight that is computed from parameters alone  becomes  a module whose weight is that computation.

    F.conv2d(x, standardized(self.weight), self.bias)   Conv2d,  weight = standardized(weight)
    F.linear(x, self.weight, torch.cat((q, k, v)))      Linear,  bias = cat(q, k, v)
    F.linear(x, self.in_proj_weight[:d])                Linear,  weight = in_proj_weight[:d]
    torch.addmm(self.bias, x, self.weight)              Linear,  weight = weightᵀ
    x @ self.weight                                     Linear,  weight = weightᵀ

The computation stays what it was, as a parametrization (``torch.nn.utils.parametrize``) of the module: the parameters
are the model's own, shared as they were, and are trained through it. Patterns, calibration and quantizers see the
module's weight; freezing and export make a constant of it. Where the computation only shows one parameter in another
shape, and nothing else reads it, the module's parameter lies in its memory, and there is no computation.

Declined: a tensor that the graph writes to; settings that no module has. What draws random numbers, calls a module or
comes from outside torch is not taken for a computation from parameters, nor is what a hook computes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from embedl_deploy.conversions.weighted_products import WeightedProduct, module_of, weighted_product
from embedl_deploy.graph.effects import Effects
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.memo import remembered
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.products import BY_ONE_VECTOR
from embedl_deploy.graph.state_values import made_from, parameters_of, value_of_state
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import Matches, PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import insert_call, replace_match
from embedl_deploy.patterns.state_tensors import only_read_by, set_from_state
from embedl_deploy.patterns.tree_match import TreeMatch, WildcardMatch
from embedl_deploy.validation.checked import checked


def reads_computed_weight(node: fx.Node) -> bool:
    """Whether a node is a product with a weight or bias that is computed from parameters alone."""
    return remembered(weighted_product, node) is not None and get_module(node) is None


class ComputedWeightPattern(Pattern):
    """Let a module compute its weight and bias from the model's parameters."""

    tree = (reads_computed_weight,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        vectors, maps = (torch.randn(2, 3, 8),), (torch.randn(2, 4, 8, 8),)
        return [
            Example(_Computing(_standardized, weight=(6, 4, 3, 3), gain=(6, 1, 1, 1)), maps, "weight standardization"),
            Example(
                _Computing(lambda m, x: F.linear(x, m.weight, torch.cat((m.q, m.q.new_zeros(8), m.v))), **_QKV),
                vectors,
                "a bias of three parts",
            ),
            Example(_Computing(lambda m, x: F.linear(x, m.weight[:8], m.bias[:8]), **_IN), vectors, "a part"),
            Example(_Computing(lambda m, x: x @ m.weight, weight=(8, 6)), vectors, "a matrix"),
            Example(
                _Computing(lambda m, x: torch.addmm(m.bias, x[0], m.weight), weight=(8, 6), bias=(6,)),
                vectors,
                "a matrix and a bias",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        vectors = (torch.randn(2, 3, 8),)
        return [
            Example(_Computing(lambda m, x: F.linear(x, m.weight), weight=(6, 8)), vectors, "a parameter"),
            Example(
                _Computing(lambda m, x: F.linear(x, m.weight * x.mean()), weight=(6, 8)), vectors, "of the input, too"
            ),
            Example(
                _Computing(lambda m, x: F.linear(x, F.dropout(m.weight, 0.5, training=True)), weight=(6, 8)),
                vectors,
                "drawn at random",
            ),
            Example(_Computing(lambda m, x: m.weight @ x, weight=(6, 3)), vectors, "the matrix comes first"),
            Example(_Computing(lambda m, x: x @ m.weight.unsqueeze(0), weight=(8, 6)), vectors, "a batch of matrices"),
        ]

    @checked
    def match(self, graph_module: fx.GraphModule) -> list[PatternMatch]:
        """Each product, with what only it reads of the computation."""
        found = super().match(graph_module)
        matches = []
        for match in found:
            node = match.tree_match.last
            inner = WildcardMatch(tuple(each for each in _only_for(node) if each.op != "get_attr"))
            matches.append(PatternMatch(self, TreeMatch((inner, node))))
        assert isinstance(found, Matches)
        return Matches(matches, found.declined, (), found.failed)

    def check(self, match: PatternMatch) -> str | None:
        """Take what a module computes, of tensors that stay as they are during a call."""
        node = match.tree_match.last
        product = weighted_product(node)
        assert product is not None  # the tree has looked
        effects = remembered(Effects, node.graph)
        for each in _state_nodes(product):
            writer = next(iter(effects.written_after(each)), None)
            if writer is not None:
                return f"{writer.name} changes {each.name}, of which its weight is made, in place"
        if module_of(node, product) is None:
            return _why_no_module(node, product)
        return None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there."""
        node = pattern_match.tree_match.last
        product = weighted_product(node)
        assert product is not None  # the graph is as it was when it matched
        module = module_of(node, product)
        assert module is not None  # check has looked
        sources = {
            name: (source, torch.t) if product.transposed and name == "weight" else (source,)
            for name, source in product.state.items()
        }
        set_from_state(pattern_match, module, sources)
        owned = [each for each in _only_for(node) if each.op == "get_attr"]
        weights = parameters_of(made_from(product.state["weight"]))
        # The originals of a parametrization lie in the layer that is computed with what it makes of them.
        kept, _, _ = str(weights[0].target).partition(".parametrizations.") if weights else ("", "", "")
        holder, _, last = kept.rpartition(".") if weights and kept == weights[0].target else (kept, "", "")
        if last == "weight" and holder:
            call = insert_call(pattern_match, module, [product.x], home=weights[0], owned=owned)
        else:
            path = f"{holder}.{operation(node)}" if holder else None
            call = insert_call(pattern_match, module, [product.x], path=path, home=node, owned=owned)
        replace_match(pattern_match, call)
        return [call]


def _why_no_module(node: fx.Node, product: WeightedProduct) -> str:
    shape = tuple(value_of_state(product.state["weight"]).shape)
    if len(shape) == 1:
        return BY_ONE_VECTOR
    return f"no module of torch.nn computes {node.name} with a weight of shape {shape} and these settings"


def _state_nodes(product: WeightedProduct) -> list[fx.Node]:
    return sorted({each for source in product.state.values() for each in made_from(source)})


def _only_for(node: fx.Node) -> list[fx.Node]:
    """What a product is computed with, and nothing else reads, in the order of the graph."""
    product = weighted_product(node)
    assert product is not None  # only matches are asked
    return only_read_by(_state_nodes(product), {node})


class _Computing(nn.Module):
    """A function of the module and its input, with parameters of given sizes, for examples."""

    def __init__(self, function: Any, **sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(size)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``function(self, x)``."""
        y: torch.Tensor = self.function(self, x)
        return y


_QKV = {"weight": (24, 8), "q": (8,), "v": (8,)}
_IN = {"weight": (24, 8), "bias": (24,)}


def _standardized(m: Any, x: torch.Tensor) -> torch.Tensor:
    """A convolution by weights of mean 0 and variance 1 times a gain (Qiao et al. 2019; Brock et al. 2021)."""
    centred = m.weight - m.weight.mean((1, 2, 3), keepdim=True)
    return F.conv2d(x, m.gain * centred / centred.square().mean((1, 2, 3), keepdim=True).add(1e-6).sqrt(), padding=1)
