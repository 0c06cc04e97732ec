"""From a seed to the source of a network. The same seed gives the same text in every process."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random

from fuzz.blocks import BLOCKS, choose_block
from fuzz.outputs import OUTPUTS
from fuzz.starts import STARTS
from fuzz.writer import Writer

#: Values larger than this are pooled, so that networks stay cheap.
LARGEST = 6000
#: Parts of a network that are no block of its middle, but can be dropped like one.
ENDS = ("dtype", "output", "tied_head")


@dataclass(frozen=True)
class Network:
    """A network as source.

    Attributes:
        seed: What it was made from.
        source: A module with ``make()``, which builds the model, and ``inputs(seed)``, which gives args and kwargs.
        blocks: Names of the parts it is made of, in order; the start first, the form of the output last.
        dropped: Positions of blocks that were left out.
        halves: Whether a part of it calculates in 16 bits.
        double: Whether it is in float64.
    """

    seed: int
    source: str
    blocks: tuple[str, ...]
    dropped: frozenset[object]
    length: int
    halves: bool
    double: bool


_HEADER = '''"""Network {seed} of the fuzzer: {blocks}."""

import math
from collections import OrderedDict, namedtuple
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
'''


def write_network(seed: int, dropped: Collection[object] = ()) -> Network:
    """Write the network of a seed.

    Args:
        seed: Any integer.
        dropped: Positions of blocks to leave out, and names from :data:`ENDS`.
    """
    rng = Random(f"network {seed}")
    start = STARTS[rng.choice([*sorted(STARTS), "sequence", "tokens", "map2d"])]
    length = rng.randint(2, 8)
    double = rng.random() < 0.1 and "dtype" not in dropped
    output = "tensor" if rng.random() < 0.5 else rng.choice(sorted(OUTPUTS))
    tied_head = rng.random() < 0.5
    w = start(Random(f"network {seed} start"))
    w.dtype = "torch.float64" if double else "torch.float32"
    names = [start.__name__]
    for position in range(length):
        w.rng = Random(f"network {seed} block {position}")
        if position in dropped:
            continue
        block = BLOCKS["shrink"] if w.value.numel > LARGEST else choose_block(w)
        block.write(w)
        names.append(block.name)
    w.rng = Random(f"network {seed} output")
    if tied_head and "tied_head" not in dropped and BLOCKS["tied_head"].fits(w):
        BLOCKS["tied_head"].write(w)
        names.append("tied_head")
    output = "tensor" if "output" in dropped else output
    OUTPUTS[output](w)
    names.append(output)
    source = _assemble(w, seed, names)
    return Network(seed, source, tuple(names), frozenset(dropped), length, w.halves, double)


def _assemble(w: Writer, seed: int, names: list[str]) -> str:
    parameters = ["self", *w.parameters]
    if w.variadic:
        parameters.append(f"*{w.variadic}")
    elif w.keyword_only:
        parameters.append("*")
    parameters += w.keyword_only
    if w.variadic_keywords:
        parameters.append(f"**{w.variadic_keywords}")
    lines = [_HEADER.format(seed=seed, blocks=", ".join(names))]
    for top in w.tops:
        lines += ["", top, ""]
    lines += ["", "class Net(nn.Module):", "    def __init__(self):", "        super().__init__()"]
    lines += [f"        {line}" for line in w.init]
    lines += ["", f"    def forward({', '.join(parameters)}):"]
    lines += [f"        {line}" for line in w.body]
    to = ".double()" if w.dtype == "torch.float64" else ""
    lines += ["", "", "def make():", f"    torch.manual_seed({seed})", f"    return Net(){to}.eval()"]
    lines += ["", "", "def inputs(seed=0):", "    g = torch.Generator().manual_seed(seed)"]
    lines += ["    args = (", *(f"        {code}," for code in (*w.args, *w.rest)), "    )"]
    lines += ["    kwargs = {", *(f"        {code}," for code in w.kwargs), "    }"]
    lines += ["    return args, kwargs", ""]
    text = "\n".join(lines)
    return text.replace("FLOAT", w.dtype)
