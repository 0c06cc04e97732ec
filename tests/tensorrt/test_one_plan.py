"""One model has one plan, whatever captured it."""

import re

import pytest
import torch

from embedl_deploy import transform
from support.agreement import fused_counts
from support.nets import random_input
from torchvision_import import import_torchvision

models = import_torchvision().models

#: One of each of several families.
NAMES = ["resnet18", "mobilenet_v3_small", "squeezenet1_1"]


def small_vit():
    return models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)


def small_swin(**kinds):
    return models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=5, **kinds)


def small_swin_v2():
    parts = models.swin_transformer
    return small_swin(block=parts.SwinTransformerBlockV2, downsample_layer=parts.PatchMergingV2)


SMALL = {"vit": small_vit, "swin": small_swin, "swin_v2": small_swin_v2}


def made(name):
    torch.manual_seed(0)
    return (SMALL[name]() if name in SMALL else models.get_model(name, weights=None)).eval()


def rewrites(model, x, trace):
    """What was applied, and to which of the model's modules."""
    paths = {path.replace(".", "_") for path, _ in model.named_modules()}
    found = []
    for entry in transform(model, x, backend="tensorrt", trace=trace).report["applied"]:
        names = (name if name in paths else re.sub(r"_\d+$", "", name) for name in entry["nodes"])
        found.append((entry["stage"], entry["pattern"], *(name for name in names if name in paths)))
    return found


@pytest.mark.parametrize("name", [*NAMES, *SMALL])
def test_the_same_rewrites_of_the_same_modules(name):
    model, x = made(name), random_input(2, 3, 32, 32) if name in SMALL else random_input(2, 3, 64, 64)
    symbolic, exported = (rewrites(model, x, trace) for trace in ("symbolic", "export"))
    # How many dimensions there are is a question that torch.export has answered.
    assert [entry for entry in symbolic if entry[1] != "HoistRankQueryPattern"] == exported
    assert exported


def test_attention_in_functions_that_no_pattern_knows_is_opened():
    """torchvision's Swin for videos: torch.fx keeps the function whole, and torch.export takes it apart."""
    torch.manual_seed(0)
    model = models.video.SwinTransformer3d([2, 4, 4], 16, [2], [2], [2, 4, 4], num_classes=5).eval()
    x = random_input(1, 3, 4, 32, 32)
    result = transform(model, x, backend="tensorrt")
    assert result.report["capture"] == "export"
    assert "shifted_window_attention_3d whole, which computes with weights of the model" in "".join(
        result.report["notes"]
    )
    assert fused_counts(result.model)["FusedScaledDotProductAttention"] == 2
    assert not [node for node in result.model.graph.nodes if "matmul" in node.name]
    assert result.verify(x).max_rel < 1e-5
