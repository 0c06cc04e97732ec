"""Files in 16 bits of models that only torch.export captures."""

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.quantize import quantize

X = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Asks for the type of its input, and computes a norm and a softmax in float32."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.w, self.a, self.b = nn.Parameter(torch.ones(32)), nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        if x.shape[1] > 1000:  # symbolic tracing stops here
            x = x + 1
        x = x + torch.arange(x.shape[1], dtype=x.dtype, device=x.device)[:, None] / 10
        mask = torch.zeros(x.shape[1], x.shape[1], dtype=x.dtype).fill_(torch.finfo(x.dtype).min).triu(1)
        h = x.to(torch.float32)
        h = self.w * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)
        s = torch.softmax(h @ h.transpose(1, 2) / 6 + mask, -1, dtype=torch.float32).to(h.dtype)
        return self.b(torch.relu(self.a(s @ h)))


@pytest.mark.parametrize(("dtype", "quantized"), [("float16", False), ("float16", True), ("bfloat16", False)])
def test_the_file_computes_what_the_model_does(tmp_path, dtype, quantized):
    result = transform(Net().eval(), X, backend="tensorrt")
    model = quantize(result, [X], progress=False) if quantized else result
    written = export_onnx(model, X, tmp_path / "m.onnx", dtype=getattr(torch, dtype))
    assert written.difference.max_rel < 5e-2
    graph = onnx.load(written.path).graph
    kind = getattr(onnx.TensorProto, dtype.upper())
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {kind}
    casts = [node.attribute[0].i for node in graph.node if node.op_type == "Cast"]
    assert sorted(casts) == sorted([onnx.TensorProto.FLOAT, kind] * 2), "around the norm and the softmax"
