"""Messages of TensorRT that are about the target or the machine, not about the file, in plain words."""

import re
from collections.abc import Iterable

_ADVICE = (
    (
        r"HW-specific datatypes: [^.]*fp4",
        "The target has no FP4: that needs compute capability 10.0 (Blackwell) or later. Compile for sm120, or "
        "quantize weights to INT4 or FP8 for this target.",
    ),
    (
        r"HW-specific datatypes: [^.]*fp8",
        "The target has no FP8: that needs compute capability 8.9 (Ada) or later. Compile for sm89 or sm120, or "
        "quantize to INT8 for this target.",
    ),
    (
        r"CUDA_SUCCESS|CUDA initialization failure|no CUDA-capable device",
        "The compiler called the GPU's driver, and this machine has none. TensorRT for RTX needs it for refit and "
        "strip_weights: leave them out, or compile on a machine with an NVIDIA GPU.",
    ),
    (
        r"FP32 GEMM|SM ?75 .*float",
        "The target has no kernel for matrix products in float32: export with dtype=torch.float16.",
    ),
    (
        r"insufficient memory|out of memory|OutOfMemory",
        "The compiler ran out of memory: pass a smaller workspace, or compile on a larger machine.",
    ),
)


def advice_on(messages: Iterable[str]) -> str | None:
    """What the messages mean and what to do; ``None`` if no message is known."""
    text = "\n".join(messages)
    return next((advice for pattern, advice in _ADVICE if re.search(pattern, text, re.IGNORECASE)), None)
