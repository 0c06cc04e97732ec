"""The TensorRT backend keeps what the conformance kit asks, check by check."""

import torch
from torchvision.models import swin_transformer

from embedl_deploy.conversions import example_swin
from support.conformance import conformance_tests

test_conforms = conformance_tests("tensorrt")


def test_the_stand_in_for_swin_attention_is_torchvisions_function():
    """So what its example shows holds of torchvision's models."""
    x, qkv, proj, bias = torch.randn(2, 4, 6, 4), torch.randn(12, 4), torch.randn(4, 4), torch.randn(1, 2, 4, 4)
    biases = {"qkv_bias": torch.randn(12), "proj_bias": torch.randn(4)}
    for shift in ([0, 0], [1, 1], [1, 0]):
        arguments = (x, qkv, proj, bias, [2, 2], 2, shift)
        wanted = swin_transformer.shifted_window_attention(*arguments, **biases)
        found = example_swin.shifted_window_attention(*arguments, **biases)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
