"""The stages of each backend, in order, and what each of them needs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Backend:
    """What models go through for a backend.

    Attributes:
        name: The backend's name.
        needed: Stages in order, each with the one that has to be right before it is tried; "" for the first.
        file: The stage whose file is checked and compiled.
        target: What engines are compiled for; ``None`` for the hardware in this machine.
    """

    name: str
    needed: dict[str, str]
    file: str
    target: str | None

    @property
    def stages(self) -> tuple[str, ...]:
        """All of them, in order."""
        return tuple(self.needed)


_COMMON = {"build": "", "transform": "build", "agree": "transform", "plan": "transform", "quantize": "transform"}

#: By name, the default first.
BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "tensorrt",
            {**_COMMON, "int8": "quantize", "fp16": "quantize", "check": "fp16", "engine": "fp16"},
            "fp16",
            "sm89",
        ),
        Backend(
            "onnxruntime",
            {**_COMMON, "int8": "quantize", "check": "int8", "engine": "int8", "run": "engine"},
            "int8",
            None,
        ),
    )
}
DEFAULT = next(iter(BACKENDS))
