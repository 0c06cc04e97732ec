"""Weights that are computed from other parameters, by torch's own parametrizations; hooks on sub-modules."""

from fuzz.blocks.block import block
from fuzz.writer import Writer

PARAMETRIZATIONS = (
    "nn.utils.parametrizations.weight_norm({})",
    "nn.utils.weight_norm({})",
    "nn.utils.parametrizations.spectral_norm({})",
    "nn.utils.spectral_norm({})",
    "nn.utils.parametrizations.orthogonal({})",
)


@block("vector", "sequence")
def parametrized_linear(w: Writer) -> None:
    """A linear layer with a computed weight, called once or twice."""
    c, x = w.value.channels, w.value.name
    layer = w.layer(w.rng.choice(PARAMETRIZATIONS).format(f"nn.Linear({c}, {c})"), "fc")
    w.put(w.rng.choice((f"{layer}({x})", f"torch.relu({layer}({x}))", f"{layer}({layer}({x}).relu())")))


@block("map2d", "map1d")
def parametrized_conv(w: Writer) -> None:
    """A convolution with a computed weight."""
    n, c = len(w.value.spatial), w.value.channels
    layer = w.layer(w.rng.choice(PARAMETRIZATIONS[:4]).format(f"nn.Conv{n}d({c}, {c}, 3, padding=1)"), "conv")
    w.put(w.rng.choice((f"{layer}({w.value.name})", f"torch.relu({layer}({w.value.name}))")))


@block("vector", "sequence")
def own_parametrization(w: Writer) -> None:
    """A parametrization of one's own."""
    w.top(
        "class Symmetric(nn.Module):\n    def forward(self, weight):\n"
        "        return weight.triu() + weight.triu(1).transpose(-1, -2)"
    )
    c = w.value.channels
    layer = w.layer(f"nn.Linear({c}, {c})", "fc")
    w.init.append(f"nn.utils.parametrize.register_parametrization({layer}, 'weight', Symmetric())")
    w.put(f"{layer}({w.value.name})")


@block("vector", "sequence")
def hooked(w: Writer) -> None:
    """A layer with hooks."""
    w.top("def double_output(module, args, output):\n    return output * 2")
    w.top("def shift_input(module, args):\n    return (args[0] + 0.5,)")
    c = w.value.channels
    layer = w.layer(f"nn.Linear({c}, {c})", "fc")
    w.init.append(
        w.rng.choice(
            (f"{layer}.register_forward_hook(double_output)", f"{layer}.register_forward_pre_hook(shift_input)")
        )
    )
    w.put(f"torch.relu({layer}({w.value.name}))")


@block("vector", "sequence")
def pruned(w: Writer) -> None:
    """A layer half of whose weights are masked by a hook."""
    w.top("from torch.nn.utils import prune")
    c = w.value.channels
    layer = w.layer(f"nn.Linear({c}, {c})", "fc")
    w.init.append(f"prune.l1_unstructured({layer}, 'weight', amount=0.5)")
    w.put(f"{layer}({w.value.name})")


@block("vector", "sequence", when=lambda w: w.dtype == "torch.float32")
def frozen_weight(w: Writer) -> None:
    """A layer that is not trained."""
    c = w.value.channels
    layer = w.layer(f"nn.Linear({c}, {c})", "fc")
    w.init.append(f"{layer}.requires_grad_(False)")
    w.put(f"{layer}({w.value.name})")
