"""One model has one plan, whatever captured it."""

import pytest
import torch

from embedl_deploy import transform
from support.agreement import fused_counts
from support.nets import random_input
from torchvision_import import import_torchvision
from zoo.member import Made
from zoo.one_plan import other_plan, rewrites_of

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


@pytest.mark.parametrize("name", [*NAMES, *SMALL])
def test_the_same_rewrites_of_the_same_modules(name):
    model, x = made(name), random_input(2, 3, 32, 32) if name in SMALL else random_input(2, 3, 64, 64)
    result = transform(model, x, backend="tensorrt", trace="symbolic")
    assert rewrites_of(model, result)
    assert other_plan(Made(model, (x,)), result, backend="tensorrt") is None


def test_what_differs_is_told():
    model, x = made("vit"), random_input(2, 3, 32, 32)
    nothing = transform(model, x, patterns=[])
    count = len(rewrites_of(model, transform(model, x, backend="tensorrt")))
    told = other_plan(Made(model, (x,)), nothing, backend="tensorrt")
    assert told == f"0 rewrites through torch.fx are {count} through torch.export"


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
