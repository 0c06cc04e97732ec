"""The GPU in this machine as a compilation target."""

import torch


def target_here() -> str | None:
    """Its compute capability, such as ``"sm89"``; ``None`` without a GPU."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"
