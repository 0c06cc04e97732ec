"""Python code that asks about its values."""

from fuzz.blocks.block import block
from fuzz.writer import Writer

#: Conditions with the answer that an ordinary tensor gives; {0} is the value.
QUESTIONS = (
    ("isinstance({0}, torch.Tensor)", True),
    ("isinstance({0}, (tuple, list))", False),
    ("type({0}) is torch.Tensor", True),
    ("hasattr({0}, 'tensors')", False),
    ("hasattr({0}, 'shape')", True),
    ("torch.is_tensor({0})", True),
    ("{0}.dim() > 1", True),
    ("{0}.ndim == 7", False),
    ("{0}.shape[0] > 1", True),
    ("{0}.is_floating_point()", True),
    ("{0}.dtype == torch.int64", False),
    ("{0}.requires_grad and False", False),
    ("callable({0})", False),
    ("{0} is None", False),
    ("len({0}) > 1", True),
    ("{{torch.float32: 2, torch.float64: 2}}.get({0}.dtype, 0) == 2", True),
    ("isinstance({0}.shape[1], int)", True),
    ("getattr({0}, 'mask', None) is None", True),
    ("{0}.is_cuda", False),
    ("torch.jit.is_scripting()", False),
    ("torch.onnx.is_in_onnx_export()", False),
    ("str({0}.device) == 'cpu'", True),
)


@block()
def question(w: Writer) -> None:
    """One way or another, by an answer that Python gives."""
    x = w.value.name
    test, _ = w.rng.choice(QUESTIONS)
    y = w.name("t")
    w.line(f"if {test.format(x)}:\n    {y} = {x} * 2\nelse:\n    {y} = {x} - 1")
    w.put(y)


@block()
def shape_arithmetic(w: Writer) -> None:
    """Sizes that are read and computed with."""
    x, last = w.value.name, w.value.shape[-1]
    n = w.let(f"{x}.shape[0]", "n")
    forms = (
        f"{x}.reshape({n}, -1).view({x}.size())",
        f"{x}.reshape({n} * {x}.size(1), -1).reshape({x}.shape)",
        f"{x} / math.sqrt({x}.size(-1))",
        f"{x} * ({x}.shape[-1] // 2) / {last}",
        f"{x}.view(*{x}.shape)",
        f"{x}.flatten(1).unflatten(1, tuple({x}.shape[1:]))",
    )
    w.put(w.rng.choice(forms))


@block()
def asserted(w: Writer) -> None:
    """An assertion about a shape."""
    x = w.value.name
    w.line(f"assert {x}.shape[{w.value.channel_axis}] == {w.value.channels}, f'got {{{x}.shape}}'")
    w.put(f"{x} + 0.5")


@block()
def training_branch(w: Writer) -> None:
    """Something else in training."""
    x = w.value.name
    w.put(w.rng.choice((f"{x} * 0.5 if self.training else {x}", f"{x} + (0.5 if self.training else 0.0)")))


@block()
def no_gradient(w: Writer) -> None:
    """A part without gradients."""
    x, y = w.value.name, w.name("t")
    if w.coin():
        w.line(f"with torch.no_grad():\n    {y} = {x} * 0.5")
        w.put(f"{x} + {y}")
    else:
        w.put(f"{x} - {x}.detach() * 0.5")


@block()
def helper(w: Writer) -> None:
    """A function of the module, with a loop and a default."""
    w.top(
        "def repeat(x, times=2, *, factor=0.5):\n    for _ in range(times):\n        x = x * factor + 1\n    return x"
    )
    w.put(w.rng.choice((f"repeat({w.value.name})", f"repeat({w.value.name}, 3, factor=0.25)")))


@block()
def tried(w: Writer) -> None:
    """A try that catches what a size cannot do."""
    x, y = w.value.name, w.name("t")
    w.line(f"try:\n    {y} = int({x}.shape[1])\nexcept TypeError:\n    {y} = 0")
    w.put(f"{x} + {y} * 0.1")
