"""Networks with torchvision's FrozenBatchNorm2d, as its detectors have it with their weights."""

from collections import Counter

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.ops.misc import FrozenBatchNorm2d

from embedl_deploy import transform

IMAGE = torch.randn(1, 3, 64, 64)


def fused(norm, backend):
    torch.manual_seed(0)
    model = resnet18(norm_layer=norm).eval()
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    result = transform(model, IMAGE, backend=backend)
    assert result.verify(IMAGE).max_rel < 1e-5
    names = [node.target for node in result.model.graph.nodes if node.op == "call_module"]
    return Counter(type(result.model.get_submodule(name)).__name__ for name in names)


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime"])
def test_they_are_fused_as_with_batch_norm(backend):
    found = fused(FrozenBatchNorm2d, backend)
    assert found == fused(nn.BatchNorm2d, backend)
    assert found["OrtConv" if backend == "onnxruntime" else "FusedConvBNAddReLU"] == {"onnxruntime": 20}.get(backend, 8)
