"""Norms before the cutting into windows."""

import onnx
import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import SwinTransformerBlock, SwinTransformerBlockV2

from embedl_deploy import export_onnx, transform
from embedl_deploy.patterns import Example
from embedl_deploy.tensorrt import TENSORRT_PATTERNS
from embedl_deploy.tensorrt.modules import SwinWindowPartition
from embedl_deploy.tensorrt.patterns import SwinNormPartitionPattern
from support.agreement import applied, check_rewrite, fused_counts, reasons
from support.nets import net, random_input, scrambled

X = random_input(2, 4, 4, 8)
PATTERNS = [SwinNormPartitionPattern()]


def block(kind=SwinTransformerBlock, shift=(2, 2)):
    return scrambled(kind(8, 2, [4, 4], list(shift))).eval()


@pytest.mark.parametrize("shift", [(0, 0), (2, 2)], ids=["plain", "shifted"])
def test_a_block_of_swin_has_one(shift):
    result = check_rewrite(block(shift=shift), (random_input(2, 8, 8, 8),), TENSORRT_PATTERNS)
    counts = fused_counts(result.model)
    assert (counts["FusedSwinNormPartition"], counts["FusedLayerNorm"]) == (1, 1)


def test_one_plan_serves_every_size_of_image():
    model = block()
    fused = transform(model, random_input(1, 8, 8, 8), backend="tensorrt").model
    for size in ((8, 8), (4, 4), (9, 13), (3, 8)):
        x = random_input(2, *size, 8)
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-5)


def test_in_version_2_the_norm_comes_after_the_attention():
    result = check_rewrite(block(SwinTransformerBlockV2), (random_input(2, 8, 8, 8),), TENSORRT_PATTERNS)
    assert "FusedSwinNormPartition" not in fused_counts(result.model)


@pytest.mark.parametrize("example", SwinNormPartitionPattern().near_misses(), ids=lambda example: example.note)
def test_near_misses(example: Example):
    assert applied(check_rewrite(example.model.eval(), example.args, PATTERNS)) == []


def test_a_norm_over_places_is_declined_with_the_reason():
    model = nn.Sequential(nn.LayerNorm((4, 4, 8)), SwinWindowPartition((2, 2), (0, 0))).eval()
    (reason,) = reasons(check_rewrite(model, (X,), PATTERNS))
    assert reason.endswith("it normalizes over the last 3 axes, so over places, too")


def test_an_output_of_the_graph_is_kept():
    parts = {"norm": nn.LayerNorm(8), "cut": SwinWindowPartition((2, 2), (0, 0))}
    model = net(lambda m, x: (y := m.norm(x), (m.cut(y), y))[1], **parts)
    assert applied(check_rewrite(model, (X,), PATTERNS)) == []


def test_the_file_normalizes_windows(tmp_path):
    x = random_input(1, 8, 8, 8)
    export_onnx(transform(block(), x, backend="tensorrt"), x, tmp_path / "block.onnx")
    graph = onnx.load(tmp_path / "block.onnx").graph
    makers = {name: node for node in graph.node for name in node.output}
    first = next(node for node in graph.node if node.op_type == "LayerNormalization")
    assert makers[first.input[0]].op_type == "Reshape"
    assert "Pad" not in {node.op_type for node in graph.node}
