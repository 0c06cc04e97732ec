"""The topology of DETR-like decoders: a sum that ends one match and feeds another."""

import operator
import random
from collections import Counter

import torch
from torch import fx, nn

from embedl_deploy import TransformationResult, transform
from embedl_deploy.modules import FusedModule, symbolic_trace
from embedl_deploy.patterns import Fork, Pattern
from support.nets import net


class FusedLinearAdd(FusedModule):
    """``linear(x) + y``."""

    inputs_to_quantize = frozenset({0, 1})

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + y


class FusedActAdd(FusedModule):
    """``act(x) + y``."""

    inputs_to_quantize = frozenset({0, 1})

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.act(x) + y


class FusedSigmoid(FusedModule):
    """``sigmoid(x)``."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, sigmoid: nn.Sigmoid) -> None:
        super().__init__()
        self.sigmoid = sigmoid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sigmoid(x)


class LinearAddPattern(Pattern):
    """Its tree ends in the sum."""

    tree = (Fork(operator.add, (nn.Linear,), ()),)
    graft = FusedLinearAdd


class SigmoidPattern(Pattern):
    """The sum is its input."""

    tree = (nn.Sigmoid,)
    graft = FusedSigmoid


class ActAddPattern(Pattern):
    """The sum is the operand that it leaves free."""

    tree = (Fork(operator.add, (nn.ReLU,), ()),)
    graft = FusedActAdd


DECODER_PATTERNS = [LinearAddPattern(), SigmoidPattern(), ActAddPattern()]

#: What is to be applied in :func:`decoder`, whatever the order.
EXPECTED = {"LinearAddPattern": 2, "SigmoidPattern": 3, "ActAddPattern": 2}


def decoder() -> nn.Module:
    """Two rounds of box refinement: ``sigmoid(linear(x) + log(r / (1 - r)))``, the sum used once more beside it."""

    def forward(self, x, start):
        r = torch.sigmoid(start)
        boxes = []
        for linear in self.layers:
            moved = linear(x) + torch.log(r / (1 - r))
            r = torch.sigmoid(moved)
            boxes.append(torch.relu(x) + moved)
        return r, boxes

    return net(forward, layers=nn.ModuleList(nn.Linear(4, 4) for _ in range(2)))


def reordered(graph_module: fx.GraphModule, chance: random.Random) -> fx.GraphModule:
    """The same computation, its nodes in another order that respects what depends on what."""
    graph, copied = fx.Graph(), {}
    nodes = list(graph_module.graph.nodes)
    waiting = [node for node in nodes if node.op != "output"]
    while waiting:
        ready = [node for node in waiting if all(n in copied for n in node.all_input_nodes)]
        inputs = [node for node in ready if node.op == "placeholder"]
        node = inputs[0] if inputs else chance.choice(ready)
        copied[node] = graph.node_copy(node, copied.__getitem__)
        waiting.remove(node)
    graph.node_copy(nodes[-1], copied.__getitem__)
    return fx.GraphModule(graph_module, graph)


def transformed_in_order(seed: int) -> tuple[nn.Module, TransformationResult]:
    """A decoder with its nodes and the patterns in an order drawn from ``seed``, and what became of it."""
    chance = random.Random(seed)
    model = reordered(symbolic_trace(decoder()), chance).eval()
    patterns = chance.sample(DECODER_PATTERNS, len(DECODER_PATTERNS))
    return model, transform(model, patterns=patterns, strict=True)


def applied_counts(result: TransformationResult) -> dict[str, int]:
    """How often each pattern was applied."""
    return dict(Counter(entry["pattern"] for entry in result.report["applied"]))
