"""What networks return: a tensor, or several in every structure that models use."""

from collections.abc import Callable

from fuzz.writer import Writer


def _others(w: Writer) -> tuple[str, str]:
    """The last value and one before it, or the last twice over."""
    earlier = [value.name for value in w.history if value.name != "ids"]
    return w.value.name, w.rng.choice(earlier) if earlier else f"{w.value.name} + 1"


def tensor(w: Writer) -> None:
    """The value itself."""
    w.line(f"return {w.value.name}")


def pair(w: Writer) -> None:
    """A tuple."""
    w.line(f"return {', '.join(_others(w))}")


def listed(w: Writer) -> None:
    """A list."""
    w.line(f"return [{', '.join(_others(w))}]")


def dictionary(w: Writer) -> None:
    """A dictionary."""
    last, other = _others(w)
    w.line(f"return {{'logits': {last}, 'hidden': {other}}}")


def ordered(w: Writer) -> None:
    """An OrderedDict that is filled step by step."""
    last, other = _others(w)
    w.line(f"out = OrderedDict()\nout['out'] = {last}\nout['aux'] = {other}\nreturn out")


def named(w: Writer) -> None:
    """A NamedTuple of the module's own."""
    w.top("class Result(NamedTuple):\n    logits: torch.Tensor\n    hidden: torch.Tensor")
    last, other = _others(w)
    w.line(f"return Result({last}, hidden={other})")


def nested(w: Writer) -> None:
    """Structures in structures, with None and a number among them."""
    last, other = _others(w)
    w.line(f"return {{'a': ({last}, [{other}, {last}]), 'none': None, 'three': 3}}")


OUTPUTS: dict[str, Callable[[Writer], None]] = {
    output.__name__: output for output in (tensor, pair, listed, dictionary, ordered, named, nested)
}
