"""Every module of ``torch.nn`` and every function of its functional half is read as a module, or it is said why not.

The lists below hold all that the installed torch has: one that is missing from them fails.
"""

import inspect
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from embedl_deploy.graph import get_module, propagate_shapes, settings_of
from embedl_deploy.graph.functional import FAMILIES
from embedl_deploy.graph.operators import operation_of_target
from support.nets import random_input

ROW, MAPS, VOLUMES = (2, 4, 8), (2, 4, 8, 8), (2, 4, 6, 6, 6)

#: One of each class, with settings that are not the defaults, and the shapes of its inputs.
MODULES = [
    (nn.Threshold(0.1, 20.0), ROW),
    (nn.ReLU(), ROW),
    (nn.RReLU(0.2, 0.4), ROW),
    (nn.Hardtanh(-2.0, 3.0), ROW),
    (nn.ReLU6(), ROW),
    (nn.Sigmoid(), ROW),
    (nn.Hardsigmoid(), ROW),
    (nn.Tanh(), ROW),
    (nn.SiLU(), ROW),
    (nn.Mish(), ROW),
    (nn.Hardswish(), ROW),
    (nn.ELU(0.5), ROW),
    (nn.CELU(0.5), ROW),
    (nn.SELU(), ROW),
    (nn.GLU(1), ROW),
    (nn.GELU("tanh"), ROW),
    (nn.Hardshrink(0.3), ROW),
    (nn.LeakyReLU(0.2), ROW),
    (nn.LogSigmoid(), ROW),
    (nn.Softplus(2.0, 10.0), ROW),
    (nn.Softshrink(0.3), ROW),
    (nn.PReLU(4), ROW),
    (nn.Softmax(1), ROW),
    (nn.LogSoftmax(-1), ROW),
    (nn.Linear(8, 3), ROW),
    (nn.Linear(8, 3, bias=False), ROW),
    (nn.Bilinear(8, 8, 3), ROW, ROW),
    (nn.Conv1d(4, 6, 3, 2, 1, 2), ROW),
    (nn.Conv1d(4, 6, 3, padding="same"), ROW),
    (nn.Conv2d(4, 6, (3, 1), (1, 2), (1, 0), groups=2), MAPS),
    (nn.Conv3d(4, 6, 3, padding=1, bias=False), VOLUMES),
    (nn.ConvTranspose1d(4, 6, 3, 2), ROW),
    (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), MAPS),
    (nn.ConvTranspose3d(4, 6, 2, bias=False, dilation=2), VOLUMES),
    (nn.Embedding(4, 3, padding_idx=1), "indices"),
    (nn.Embedding(4, 3), "indices"),
    (nn.BatchNorm1d(4, 0.1, 0.2), ROW),
    (nn.BatchNorm2d(4, affine=False), MAPS),
    (nn.BatchNorm3d(4), VOLUMES),
    (nn.InstanceNorm1d(4, 0.1), ROW),
    (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), MAPS),
    (nn.InstanceNorm3d(4, affine=True), VOLUMES),
    (nn.GroupNorm(2, 4, 0.1), ROW),
    (nn.GroupNorm(2, 4, affine=False), MAPS),
    (nn.LayerNorm(8, 0.1), ROW),
    (nn.LayerNorm((4, 8), elementwise_affine=False), ROW),
    (nn.RMSNorm(8, 0.1), ROW),
    (nn.MaxPool1d(2), ROW),
    (nn.MaxPool2d(3, 2, 1, ceil_mode=True), MAPS),
    (nn.MaxPool2d(2, return_indices=True), MAPS),
    (nn.MaxPool3d((1, 2, 2)), VOLUMES),
    (nn.AvgPool1d(3, 1, 1), ROW),
    (nn.AvgPool2d(2, count_include_pad=False, divisor_override=3), MAPS),
    (nn.AvgPool3d(2), VOLUMES),
    (nn.AdaptiveAvgPool1d(2), ROW),
    (nn.AdaptiveAvgPool2d((1, 2)), MAPS),
    (nn.AdaptiveAvgPool3d(2), VOLUMES),
    (nn.AdaptiveMaxPool1d(2, return_indices=True), ROW),
    (nn.AdaptiveMaxPool2d((1, 2), return_indices=True), MAPS),
    (nn.AdaptiveMaxPool3d(2, return_indices=True), VOLUMES),
    (nn.ReflectionPad1d(1), ROW),
    (nn.ReflectionPad2d((1, 0, 2, 1)), MAPS),
    (nn.ReflectionPad3d(1), VOLUMES),
    (nn.ReplicationPad1d(1), ROW),
    (nn.ReplicationPad2d(1), MAPS),
    (nn.ReplicationPad3d(1), VOLUMES),
    (nn.ConstantPad1d(1, 2.0), ROW),
    (nn.ConstantPad2d(1, 2.0), MAPS),
    (nn.ConstantPad3d(1, 2.0), VOLUMES),
    (nn.ZeroPad1d(1), ROW),
    (nn.ZeroPad2d((1, -1, 2, 0)), MAPS),
    (nn.ZeroPad3d(1), VOLUMES),
    (nn.CircularPad1d(1), ROW),
    (nn.CircularPad2d(1), MAPS),
    (nn.CircularPad3d(1), VOLUMES),
    (nn.PixelShuffle(2), MAPS),
    (nn.PixelUnshuffle(2), MAPS),
    (nn.ChannelShuffle(2), MAPS),
    (nn.Upsample(scale_factor=2.0), MAPS),
    (nn.Upsample(size=5, mode="linear", align_corners=True), ROW),
    (nn.Upsample(size=(5, 7), mode="bicubic"), MAPS),
    (nn.Upsample(scale_factor=(2.0, 2.0, 1.5), mode="trilinear"), VOLUMES),
    (nn.Upsample(size=9, mode="nearest-exact"), MAPS),
    (nn.Fold((9, 9), 2), (2, 16, 64)),
    (nn.Unfold(2, stride=2), MAPS),
    (nn.Flatten(1, 2), MAPS),
    (nn.Unflatten(1, (2, 2)), ROW),
    (nn.Dropout(0.3), ROW),
    (nn.Dropout1d(0.3), ROW),
    (nn.Dropout2d(0.3), MAPS),
    (nn.Dropout3d(0.3), VOLUMES),
    (nn.AlphaDropout(0.3), ROW),
    (nn.FeatureAlphaDropout(0.3), MAPS),
    (nn.CosineSimilarity(2, 1e-4), ROW, ROW),
    (nn.PairwiseDistance(1.0, keepdim=True), ROW, ROW),
]

_SEVERAL = "torch.export writes it as several operations"
_CONTAINER = "holds modules, and computes nothing itself"
_RECURRENT = "a loop, with states"
_LOSS = "a loss is no part of a model that is deployed"
_OTHER_CLASS = "one call with another class of the same computation: "
#: Why a module's call under torch.export is not read as the class.
NOT_READ = {
    **dict.fromkeys(("Softsign", "Tanhshrink", "Softmin", "LPPool1d", "LPPool2d", "LPPool3d"), _SEVERAL),
    **dict.fromkeys(("LocalResponseNorm", "CrossMapLRN2d", "EmbeddingBag", "MultiheadAttention"), _SEVERAL),
    **dict.fromkeys(("MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "AdaptiveLogSoftmaxWithLoss"), _SEVERAL),
    **dict.fromkeys(("FractionalMaxPool2d", "FractionalMaxPool3d"), "draws where it pools"),
    "Softmax2d": _OTHER_CLASS + "Softmax",
    "UpsamplingNearest2d": _OTHER_CLASS + "Upsample",
    "UpsamplingBilinear2d": _OTHER_CLASS + "Upsample",
    "SyncBatchNorm": "needs a process group; in evaluation mode it is the batch norm of its input",
    "Identity": "no call is left of it",
    "Module": "the base of all",
    **dict.fromkeys(("Container", "Sequential", "ModuleList", "ModuleDict", "DataParallel"), _CONTAINER),
    **dict.fromkeys(("ParameterList", "ParameterDict"), _CONTAINER),
    **dict.fromkeys(("RNNBase", "RNN", "LSTM", "GRU", "RNNCellBase", "RNNCell", "LSTMCell", "GRUCell"), _RECURRENT),
    **dict.fromkeys(("Transformer", "TransformerEncoder", "TransformerDecoder"), _SEVERAL),
    **dict.fromkeys(("TransformerEncoderLayer", "TransformerDecoderLayer"), _SEVERAL),
}
#: Functions of torch.nn.functional that are not read as a module. Losses are none of a deployed model's.
NOT_FUNCTIONS = {
    **dict.fromkeys(("affine_grid", "grid_sample", "one_hot", "normalize", "gumbel_softmax"), "no module of torch.nn"),
    **dict.fromkeys(("grouped_mm", "scaled_grouped_mm", "scaled_mm", "conv_tbc", "pdist"), "no module of torch.nn"),
    **dict.fromkeys(("scaled_dot_product_attention", "linear_cross_entropy"), "no module of torch.nn"),
    "embedding_bag": "its inputs say where bags begin",
    "multi_head_attention_forward": "nn.MultiheadAttention calls it with its own parameters",
    **{f"fractional_max_pool{n}d{end}": "draws where it pools" for n in (2, 3) for end in ("", "_with_indices")},
}


def classes():
    return {name: value for name, value in vars(nn).items() if inspect.isclass(value) and issubclass(value, nn.Module)}


def test_every_class_of_torch_nn_is_tried_or_said_why_not():
    tried = {type(module).__name__ for module, *_ in MODULES}
    assert not tried & set(NOT_READ)
    left = set(classes()) - tried - set(NOT_READ)
    assert {name for name in left if not name.startswith("Lazy") and "Loss" not in name} == set()
    assert set(NOT_READ) <= set(classes())


def inputs_of(shapes):
    return tuple(
        torch.tensor([[0, 3], [1, 2]]) if shape == "indices" else random_input(*shape, seed=i)
        for i, shape in enumerate(shapes)
    )


@pytest.mark.parametrize("case", MODULES, ids=[repr(module) for module, *_ in MODULES])
def test_what_torch_export_makes_of_a_module_is_read_as_the_module(case):
    module, *shapes = case
    module, args = module.eval(), inputs_of(shapes)
    graph_module = torch.export.export(module, args).module()
    (node,) = (n for n in graph_module.graph.nodes if n.op == "call_function" and n.target is not operator.getitem)
    found = get_module(node)
    assert isinstance(found, type(module)), f"{node.target} is read as {found}"
    assert settings_of(found) == settings_of(module)
    for training in (False, True):
        got, wanted = found.train(training)(*args), module(*args)
        if type(module).__name__.startswith("InstanceNorm"):
            torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
        else:
            torch.testing.assert_close(got, wanted, rtol=0, atol=0)


#: Modules that torch.export writes as several operations, and whose own function is read as them.
FUNCTIONS_ALONE = [
    (nn.Softsign(), ROW),
    (nn.Tanhshrink(), ROW),
    (nn.Softmin(1), ROW),
    (nn.LPPool1d(2, 3, 2), ROW),
    (nn.LPPool2d(2, (2, 3), ceil_mode=True), MAPS),
    (nn.LPPool3d(1, 2), VOLUMES),
    (nn.LocalResponseNorm(2, 1e-3, 0.5, 2.0), MAPS),
    (nn.AdaptiveMaxPool1d(2), ROW),
    (nn.AdaptiveMaxPool2d(2), MAPS),
]
#: They ask for the rank of the input, or their channels are known by it.
_ASKS = (
    nn.modules.batchnorm._NormBase,
    nn.modules.padding._CircularPadNd,
    nn.modules.conv._ConvTransposeNd,
    nn.GroupNorm,
)


class _Opening(fx.Tracer):
    """Sees the function that a module calls."""

    def is_leaf_module(self, m, module_qualified_name):
        return False


@pytest.mark.parametrize(
    "case",
    [case for case in (*MODULES, *FUNCTIONS_ALONE) if not isinstance(case[0], _ASKS)],
    ids=lambda case: repr(case[0]),
)
def test_the_function_that_a_module_calls_is_read_as_the_module(case):
    module = case[0].eval()
    graph_module = fx.GraphModule(module, _Opening().trace(module))
    (node,) = (n for n in graph_module.graph.nodes if n.op in ("call_function", "call_method"))
    found = get_module(node)
    assert isinstance(found, type(module)), f"{node.target} is read as {found}"
    assert settings_of(found) == settings_of(module)
    assert {id(t) for t in found.state_dict(keep_vars=True).values()} == {id(t) for t in module.parameters()}


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("F.batch_norm(x, m.mean, m.var, eps=0.1)", nn.BatchNorm1d(4, 0.1, affine=False)),
        ("F.instance_norm(x, eps=0.1)", nn.InstanceNorm1d(4, 0.1)),
        ("F.group_norm(x, num_groups=2)", nn.GroupNorm(2, 4, affine=False)),
        ("F.dropout1d(x, 0.2, training=False)", nn.Dropout1d(0.2)),
        ("F.conv_transpose1d(x, m.w, stride=2, output_padding=1)", nn.ConvTranspose1d(4, 2, 3, 2, 0, 1, bias=False)),
        (
            "torch.convolution(x, m.w, None, [1], [0], [1], True, [0], 2)",
            nn.ConvTranspose1d(4, 4, 3, groups=2, bias=False),
        ),
        ("F.pad(x, (1, 1), mode='circular')", nn.CircularPad1d(1)),
    ],
)
def test_what_depends_on_the_shape_of_the_input(text, module):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.randn(4))
            self.register_buffer("var", torch.rand(4))
            self.w = nn.Parameter(torch.randn(4, 2, 3))

        def forward(self, x):
            return eval(text, {"F": F, "torch": torch, "m": self, "x": x})

    holder = Holder()
    graph_module = fx.symbolic_trace(holder)
    propagate_shapes(graph_module, (random_input(*ROW),), {})
    found = get_module(next(n for n in graph_module.graph.nodes if n.op == "call_function"))
    assert isinstance(found, type(module))
    assert settings_of(found) == settings_of(module)
    torch.testing.assert_close(found(random_input(*ROW)), holder(random_input(*ROW)), rtol=1e-6, atol=1e-6)


def test_every_function_of_torch_nn_functional_is_read_or_said_why_not():
    read = {name for forms in FAMILIES.values() for form in forms for name in form.operations}
    functions = {
        name
        for name in dir(F)
        if not name.startswith(("_", "has_torch_function")) and inspect.isroutine(getattr(F, name))
    } - {"handle_torch_function", "assert_int_or_pair", "boolean_dispatch"}
    losses = {n for n in functions if n.endswith("_loss") or "cross_entropy" in n} | {"kl_div"}
    left = {name for name in functions - losses if operation_of_target(getattr(F, name)) not in read}
    assert left - set(NOT_FUNCTIONS) == set()
    assert set(NOT_FUNCTIONS) <= functions
    assert not {operation_of_target(getattr(F, name)) for name in NOT_FUNCTIONS} & read
