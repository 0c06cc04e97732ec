"""Every function and layer of torch that multiplies and accumulates is known as one."""

import contextlib
import inspect
import re

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from embedl_deploy.graph.products import WEIGHTED, is_bound_by_memory, is_product, product_of_call
from embedl_deploy.graph.shapes import propagate_shapes

#: Kernels of products.
KERNELS = {"mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "convolution", "_trilinear"}
KERNELS |= {"_euclidean_dist"}
#: Names that sound like products, or use them on the way, and are none.
NO_PRODUCTS = {
    "outer, which accumulates nothing": {"outer", "ger", "addr", "kron", "cartesian_prod"},
    "of all values, without a second factor": {"prod", "cumprod", "_sparse_csr_prod"},
    "a solver or a decomposition": {"lobpcg", "pca_lowrank", "svd_lowrank", "pinverse", "pinv", "linalg_pinv"}
    | {"householder_product", "linalg_householder_product"},
    "interpolation by fixed factors": {"upsample_bilinear", "__upsample_bilinear", "_upsample_bilinear2d_aa"}
    | {"upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d"},
    "one value at a time": {"float_power", "mvlgamma"},
    "sorting and packing": {"_pack_padded_sequence", "_pack_sequence", "_pad_packed_sequence", "lu_unpack"}
    | {"_unpack_dual", "to_dlpack", "from_dlpack", "fbgemm_pack_gemm_matrix_fp16", "fbgemm_pack_quantized_matrix"}
    | {"_convert_weight_to_int4pack", "_convert_weight_to_int4pack_for_cpu", "_dyn_quant_pack_4bit_weight"},
    "no computation": {"_nnpack_available", "_in_projection_packed", "_dimV", "__dlpack__", "__dlpack_device__"}
    | {"_import_dotted_name", "_is_integer", "_to_dlpack"},
}
EXCEPTIONS = set().union(*NO_PRODUCTS.values())
#: Parts of words, on purpose coarser than what is tested.
SUSPICIOUS = re.compile(
    r"mm(_|\d|$)|matmul|mv|dot|inner|conv(?!ert)|linear|einsum|attention|lstm|gru|rnn|cov(_|$)|corrcoef|power|lowrank|"
    r"pinv|chain|kron|outer|ger$|bag|_cell|prod|addr$|cdist|pack|expert|multi_head|encoder_layer|cosine|euclid|affine_grid"
)
NAMESPACES = {
    "torch": torch,
    "functional": F,
    "linalg": torch.linalg,
    "sparse": torch.sparse,
    "special": torch.special,
    "fft": torch.fft,
    "methods": torch.Tensor,
}


def judged_wrongly(names):
    named = {name if name.startswith("__") else name.removesuffix("_") for name in names}
    suspicious = {name for name in named if SUSPICIOUS.search(name.lower())}
    return {name for name in suspicious if is_product(name) == (name in EXCEPTIONS)}


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_names_of_functions(namespace):
    home = NAMESPACES[namespace]
    functions = [getattr(home, name) for name in dir(home) if callable(getattr(home, name))]
    names = {f.__name__ for f in functions if not isinstance(f, type) and hasattr(f, "__name__")}
    assert judged_wrongly(names - {"set_float32_matmul_precision", "get_float32_matmul_precision"}) == set()


def test_names_of_aten():
    names = {schema.name.removeprefix("aten::") for schema in torch._C._jit_get_all_schemas()}
    assert judged_wrongly(name for name in names if ":" not in name and "backward" not in name) == set()


class Kernels(TorchDispatchMode):
    """Notes which operators run."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_what_runs_a_kernel_of_products():
    """By running every function of torch on a few tensors, whatever its name."""
    signatures = torch.overrides.get_testing_overrides()
    # Distances are computed by a product of matrices from 26 rows on.
    square, batch, image = torch.rand(26, 26), torch.rand(2, 3, 3), torch.rand(3, 3, 3, 3)
    found = set()
    for home, functions in torch.overrides.get_overridable_functions().items():
        for function in functions if not isinstance(home, type) and home is not torch.Tensor else ():
            name = getattr(function, "__name__", "")
            if function not in signatures or name in ("__get__", "lobpcg"):
                continue
            parameters = inspect.signature(signatures[function]).parameters.values()
            count = sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
            for x in (square, batch, image):
                with Kernels() as kernels, contextlib.suppress(Exception):  # most do not take these tensors
                    function(*[x] * count)
                if kernels.seen & KERNELS:
                    found.add(name)
    assert {"mm", "conv2d", "linalg_matmul", "einsum", "cov", "scaled_dot_product_attention"} - found <= {"einsum"}
    assert {name for name in found if not is_product(name)} - EXCEPTIONS == set()


X, W = torch.rand(4, 8), torch.rand(8, 5)
SUMS = {
    "broadcast views": (lambda x, w: (x.unsqueeze(-1) * w).sum(1), True),
    "sum of a function": (lambda x, w: torch.sum(torch.mul(x[:, :, None], w), dim=1), True),
    "mean": (lambda x, w: (w * x.unsqueeze(2)).mean(axis=-2), True),
    "in place": (lambda x, w: (x.unsqueeze(-1) + torch.zeros(5)).mul_(w).sum(1), True),
    "through a view": (lambda x, w: (x.unsqueeze(-1) * w).permute(0, 2, 1).contiguous().sum(-1), True),
    "everything": (lambda x, w: (x * x.flip(0)).sum(), True),
    "a row each": (lambda x, w: (x * x.flip(0)).sum(-1, keepdim=True), True),
    "an outer product that is summed": (lambda x, w: (x[:, :, None] * w[0]).sum(1), False),
    "a gate": (lambda x, w: (x * x.mean(1, keepdim=True)).sum(1), False),
    "a number": (lambda x, w: (x * 3).sum(1), False),
    "a square": (lambda x, w: (x * x).sum(1), False),
    "integers": (lambda x, w: (x.long() * w.long()[:, 0]).sum(1), False),
    "a sum alone": (lambda x, w: x.sum(1), False),
    "a quotient": (lambda x, w: (x.unsqueeze(-1) / w).sum(1), False),
}


@pytest.mark.parametrize(("function", "wanted"), SUMS.values(), ids=SUMS)
def test_a_multiplication_that_is_summed(function, wanted):
    traced = fx.symbolic_trace(function)
    propagate_shapes(traced, (X, W), {})
    last = next(node for node in reversed(traced.graph.nodes) if node.op != "output")
    assert (product_of_call(last) == "mul and sum") is wanted
    exported = torch.export.export(Calling(function), (X, W)).graph_module
    names = [product_of_call(node) for node in exported.graph.nodes if node.op == "call_function"]
    assert ("mul and sum" in names) is wanted


class Calling(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, w):
        return self.function(x, w)


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x, w: (x.unsqueeze(-1) * w).sum(1), True),  # a matrix with a vector
        (lambda x, w: (x[:, :, None] * w[0]).sum(1), False),  # rows and columns, 9 of them
        (lambda x, w: (x[:, :, None] * w[0, :, :2]).sum(1), True),  # two columns
        (lambda x, w: (x * x.flip(0)).sum(-1), True),
        (lambda x, w: x @ w[0], False),
    ],
)
def test_a_number_read_for_each_product_is_bound_by_memory(function, wanted):
    traced = fx.symbolic_trace(function)
    x, w = torch.randn(8, 16), torch.randn(8, 16, 9)
    propagate_shapes(traced, (x, w), {})
    last = next(node for node in reversed(traced.graph.nodes) if node.op != "output")
    assert is_bound_by_memory(last) is wanted


def test_without_shapes_every_such_sum_may_be_one():
    traced = fx.symbolic_trace(SUMS["a gate"][0])
    assert [product_of_call(node) for node in traced.graph.nodes if node.op == "call_method"][-1] == "mul and sum"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # classes that torch keeps under an old name
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_layers_with_a_weight():
    """Of the layers with parameters of two dimensions or more, those that are not weighted look rows up, or scale."""
    small = {"in_features": 4, "out_features": 4, "in1_features": 4, "in2_features": 4, "in_channels": 4}
    small |= {"out_channels": 4, "kernel_size": 1, "input_size": 4, "hidden_size": 4, "embed_dim": 4, "num_heads": 2}
    small |= {"num_embeddings": 4, "embedding_dim": 4, "d_model": 4, "nhead": 2, "num_features": 4}
    small |= {"normalized_shape": (4, 4), "n_classes": 4, "cutoffs": [2], "mode": "LSTM", "bias": True, "num_chunks": 4}
    small |= {"num_groups": 2, "num_channels": 4, "num_classes": 4}
    found = set()
    for name in dir(nn):
        cls = getattr(nn, name)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)) or name.startswith("Lazy"):
            continue
        required = [
            p.name
            for p in inspect.signature(cls.__init__).parameters.values()
            if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and p.name in small
        ]
        try:
            layer = cls(**{key: small[key] for key in required})
        except (TypeError, ValueError, AssertionError):
            continue
        if any(parameter.dim() > 1 for parameter in layer.parameters()):
            found.add(name)
            weighted = any(isinstance(part, WEIGHTED) for part in layer.modules())
            assert weighted or name in ("Embedding", "LayerNorm", "RMSNorm"), name
    assert {"Bilinear", "GRUCell", "ConvTranspose3d", "EmbeddingBag", "MultiheadAttention"} <= found
