"""A machine without enough memory is not told as a fault of the model or its inputs."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.graph.out_of_memory import is_out_of_memory
from support.nets import random_input


def of_the_allocator():
    try:
        torch.empty(1 << 55, dtype=torch.int8)
    except RuntimeError as error:
        return error
    raise AssertionError("a machine with 32 PiB of memory")


@pytest.mark.parametrize("error", [of_the_allocator(), torch.OutOfMemoryError("CUDA"), MemoryError()])
def test_what_it_is(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("can't allocate a name"), ValueError("DefaultCPUAllocator")])
def test_what_it_is_not(error):
    assert not is_out_of_memory(error)


class TooLarge(nn.Linear):
    def __deepcopy__(self, memo):
        raise of_the_allocator()


def test_a_model_that_does_not_fit_twice_is_told_as_that():
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        transform(TooLarge(4, 4), random_input(2, 4), patterns=[])
