"""What the report says about operators that the engine cannot run."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import apply_transformation_plan, get_transformation_plan


class Calls(nn.Module):
    """One function of one input, so that each test has one operator."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


MODULES = [
    (nn.GELU(), "GELU: the engine has only ReLU"),
    (nn.ReLU6(), "ReLU6: the engine has only ReLU"),
    (nn.PReLU(), "PReLU: the engine has only ReLU"),
    (nn.Softmax(1), "Softmax: the engine has only ReLU"),
    (nn.ReLU(), "ReLU: the engine supports it only directly after a convolution, a linear layer or a sum"),
    (nn.BatchNorm2d(4, track_running_stats=False), "BatchNorm2d: the batch norm keeps no running statistics"),
    (nn.BatchNorm1d(4), "BatchNorm1d: no normalization but batch norm folded into a convolution"),
    (nn.LayerNorm(8), "LayerNorm: no normalization but batch norm folded into a convolution"),
    (nn.GroupNorm(2, 4), "GroupNorm: no normalization but batch norm folded into a convolution"),
    (nn.InstanceNorm2d(4), "InstanceNorm2d: no normalization but batch norm folded into a convolution"),
    (nn.Conv2d(4, 4, 5), "Conv2d: kernel is 5×5; the engine has 1×1 and 3×3"),
    (nn.ConvTranspose2d(4, 4, 3), "ConvTranspose2d: the engine has only two-dimensional convolutions, not transposed"),
    (nn.AdaptiveAvgPool2d(2), "AdaptiveAvgPool2d: output is 2×2; the engine averages over the whole map, to 1×1"),
    (nn.AdaptiveMaxPool2d(1), "AdaptiveMaxPool2d: the engine has 2×2 max pooling with stride 2 and global average"),
    (nn.ZeroPad2d(1), "ZeroPad2d: the engine pads only as part of a convolution"),
    (nn.Upsample(scale_factor=2), "Upsample: the engine does not resize"),
    (nn.LSTM(8, 4), "LSTM: the engine keeps no state from step to step"),
    (nn.Embedding(9, 4), "Embedding: the engine has no table look-up"),
    (nn.PixelShuffle(2), "PixelShuffle: the engine runs only"),
]
FUNCTIONS = [
    (lambda x: x + 1, "add: it adds a constant; the engine adds two maps"),
    (lambda x: x.add_(1), "add: it adds a constant; the engine adds two maps"),
    (lambda x: torch.add(x, x, alpha=2), "add: it multiplies what it adds by 2"),
    (lambda x: x - x, "sub: the engine has no element-wise arithmetic but sums of two maps"),
    (lambda x: x * torch.sigmoid(x), "mul: the engine has no element-wise arithmetic"),
    (lambda x: x / 2, "truediv: the engine has no element-wise arithmetic"),
    (lambda x: F.gelu(x), "GELU: the engine has only ReLU"),
    (lambda x: F.softplus(x), "Softplus: the engine has only ReLU"),
    (lambda x: torch.cat([x, x], 1), "cat: the engine neither joins nor splits maps"),
    (lambda x: x.mean((2, 3)), "mean: the shape of its input is unknown"),
    (lambda x: x @ x, "matmul: the engine has no attention"),
    (lambda x: F.scaled_dot_product_attention(x, x, x), "scaled_dot_product_attention: the engine has no attention"),
    (lambda x: F.interpolate(x, scale_factor=2), "Upsample: the engine does not resize"),
    (lambda x: x.permute(0, 2, 3, 1), "permute: the engine does not move data between dimensions"),
    (lambda x: F.conv2d(x, x), "conv2d: its weight is computed at run time; the engine has constant weights"),
    (lambda x: F.normalize(x), "normalize: no normalization but batch norm folded into a convolution"),
    (lambda x: torch.erfinv(x), "erfinv: the engine runs only"),
]


@pytest.mark.parametrize(("module", "reason"), MODULES, ids=lambda value: type(value).__name__)
def test_modules(module, reason, fuse):
    report = fuse(nn.Sequential(module)).report
    assert list(report.unsupported) == ["_0"]
    assert report.unsupported["_0"].startswith(reason)


@pytest.mark.parametrize(("function", "reason"), FUNCTIONS, ids=[reason.split(":")[0] for _, reason in FUNCTIONS])
def test_functions(function, reason, fuse):
    unsupported = list(fuse(Calls(function)).report.unsupported.values())
    assert any(given.startswith(reason) for given in unsupported), unsupported


def test_attention(fuse):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    report = fuse(Attention()).report
    assert report.unsupported == {
        "attention": "MultiheadAttention: the engine has no attention and no product of two computed values"
    }


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.flatten(1),
        lambda x: torch.flatten(x, 1),
        lambda x: x.view(x.size(0), -1),
        lambda x: x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]),
        lambda x: x[:, 0],
        lambda x: x.squeeze(1).unsqueeze(1),
        lambda x: x.contiguous(),
        lambda x: F.dropout(x, training=False),
    ],
)
def test_reshapes_and_sizes_need_no_engine(function, fuse):
    report = fuse(Calls(function)).report
    assert report.unfused, "the operator is there, outside fused modules"
    assert report.unsupported == {}


@pytest.mark.parametrize("module", [nn.Identity(), nn.Flatten(), nn.Dropout(), nn.Dropout2d()])
def test_modules_that_are_gone_at_inference_need_no_engine(module, fuse):
    report = fuse(nn.Sequential(module).train()).report
    assert report.unfused == {"_0": type(module).__name__}
    assert report.unsupported == {}


def test_what_a_plan_leaves_alone_could_run(fuse):
    plan = get_transformation_plan(nn.Sequential(nn.Conv2d(4, 4, 3)), backend="sensai")
    plan.get("_0", "ConvBNPattern").apply = False
    report = apply_transformation_plan(plan).report
    assert report.unfused == {"_0": "Conv2d"}
    assert report.unsupported == {}


@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning")  # torch, while it copies its own graph
def test_exported_models_are_explained_alike(fuse):
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 2)).eval()
    x = torch.randn(1, 4, 8, 8)
    report = fuse(torch.export.export(model, (x,)).module(), x).report
    assert list(report.unsupported.values()) == ["GELU: the engine has only ReLU"]
    assert report["applied_count"] == 4


def test_the_printed_report_shows_them(fuse):
    text = str(fuse(nn.Sequential(nn.Conv2d(4, 4, 3), nn.GELU(), nn.Flatten())).report)
    assert "Cannot run on this hardware" in text
    assert "GELU: the engine has only ReLU" in text
    assert "Flatten:" not in text
