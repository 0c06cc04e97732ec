"""The processor in this machine as a compilation target."""

import platform
from pathlib import Path

import torch

_MACHINES = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "arm64", "arm64": "arm64"}
#: Instructions for products of 8-bit integers, as Linux names them, best first, and how they are called here.
_INTEGER_PRODUCTS = (
    ("amx_int8", "amx"),
    ("avx512_vnni", "vnni"),
    ("avx_vnni", "vnni"),
    ("i8mm", "i8mm"),
    ("asimddp", "dotprod"),
)


def processor_here() -> str:
    """The kind of processor in this machine, such as ``"x86-64-avx512-vnni"`` or ``"arm64-i8mm"``.

    The widest vectors that torch uses on it, and, where the operating system is Linux, which says so, the best of its
    instructions for products of 8-bit integers. ONNX Runtime's optimized models depend on both: on the first how
    activations are laid out, on the second which integer kernels are exact.
    """
    machine = platform.machine().lower()
    parts = [_MACHINES.get(machine, machine)]
    vectors = torch.backends.cpu.get_cpu_capability().lower()
    if vectors not in ("default", "no avx"):
        parts.append(vectors)
    flags = _flags()
    parts += [name for flag, name in _INTEGER_PRODUCTS if flag in flags][:1]
    return "-".join(parts)


def _flags() -> frozenset[str]:
    """The features that Linux lists; none elsewhere."""
    listed = Path("/proc/cpuinfo")
    if not listed.is_file():
        return frozenset()
    for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
