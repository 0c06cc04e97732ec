"""What networks begin with: their first input, and further inputs in every way that Python has."""

from collections.abc import Callable
from random import Random

from fuzz.writer import Value, Writer


def _writer(rng: Random, kind: str, shape: tuple[int, ...]) -> Writer:
    w = Writer(rng, Value("x", shape, kind))
    w.parameters.append("x")
    w.args.append(f"torch.randn({', '.join(map(str, shape))}, generator=g, dtype=FLOAT)")
    return w


def _batch(rng: Random) -> int:
    return rng.choice((2, 3))


def vector(rng: Random) -> Writer:
    """(N, E)."""
    return _writer(rng, "vector", (_batch(rng), rng.choice((6, 8, 12))))


def sequence(rng: Random) -> Writer:
    """(N, S, E)."""
    return _writer(rng, "sequence", (_batch(rng), rng.choice((5, 7)), rng.choice((8, 12))))


def map1d(rng: Random) -> Writer:
    """(N, C, L)."""
    return _writer(rng, "map1d", (_batch(rng), rng.choice((4, 6, 8)), rng.choice((9, 11))))


def map2d(rng: Random) -> Writer:
    """(N, C, H, W)."""
    return _writer(rng, "map2d", (_batch(rng), rng.choice((3, 4, 8)), rng.choice((7, 8)), rng.choice((8, 9))))


def map3d(rng: Random) -> Writer:
    """(N, C, D, H, W)."""
    return _writer(rng, "map3d", (_batch(rng), rng.choice((2, 4)), 5, 6, 5))


def tokens(rng: Random) -> Writer:
    """Indices (N, S) and a table."""
    batch, length, width = _batch(rng), rng.choice((5, 7)), rng.choice((8, 12))
    count = rng.choice((11, 16))
    w = Writer(rng, Value("ids", (batch, length), "vector"))
    w.parameters.append("ids")
    w.args.append(f"torch.randint(0, {count}, ({batch}, {length}), generator=g)")
    padding = ", padding_idx=0" if w.coin(0.3) else ""
    table = w.layer(f"nn.Embedding({count}, {width}{padding})", "table")
    w.embedding = (table, count, width)
    w.put(f"{table}(ids)", (batch, length, width), "sequence")
    w.history.clear()
    return w


STARTS: dict[str, Callable[[Random], Writer]] = {
    start.__name__: start for start in (vector, sequence, map1d, map2d, map3d, tokens)
}
