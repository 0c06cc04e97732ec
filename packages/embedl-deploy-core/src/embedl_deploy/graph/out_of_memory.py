"""Recognizes out-of-memory errors, which are not the fault of a model, its inputs or a plugin."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; on a CPU torch says so by a plain ``RuntimeError`` of its allocator."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
