"""The grammar: every block that a network may be made of, by name."""

from fuzz.blocks import (
    activations,
    attention,
    buffers,
    convolutions,
    dtypes,
    inplace,
    inputs,
    norms,
    parametrized,
    pooling,
    products,
    questions,
    recurrent,
    reshaping,
    sharing,
)
from fuzz.blocks.block import Block
from fuzz.writer import Writer

_FAMILIES = (
    activations,
    attention,
    buffers,
    convolutions,
    dtypes,
    inplace,
    inputs,
    norms,
    parametrized,
    pooling,
    products,
    questions,
    recurrent,
    reshaping,
    sharing,
)
#: By name; in a fixed order.
BLOCKS: dict[str, Block] = {
    value.name: value for family in _FAMILIES for _, value in sorted(vars(family).items()) if isinstance(value, Block)
}


def choose_block(w: Writer) -> Block:
    """One of the blocks that can take the value that flows; those that take few kinds of values more often."""
    blocks = [block for block in BLOCKS.values() if block.drawn and block.fits(w)]
    (block,) = w.rng.choices(blocks, [1 / len(block.kinds) for block in blocks])
    return block


__all__ = ["BLOCKS", "Block", "choose_block"]
