"""One model for two backends in one process: each file is the one that a process with that backend alone writes."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.quantize import quantize

BACKENDS = ("tensorrt", "onnxruntime")


class Net(nn.Module):
    """Convolutions with a residual sum, an attention, and a head: what both backends rewrite, each in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(self.conv(x) + x)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self.norm(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0])
        return self.head(tokens.mean(1))


def make() -> tuple[nn.Module, torch.Tensor]:
    """The network and its input, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return net, torch.randn(1, 3, 8, 8, generator=generator)


def written(net: nn.Module, x: torch.Tensor, backend: str, folder: Path) -> str:
    """The digest of the file that a backend gets of a network, quantized."""
    model = quantize(transform(net, x, backend=backend), [x], progress=False)
    path = folder / f"{backend}.onnx"
    export_onnx(model, x, path, tolerance=None)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digest for each backend, from a process that never loads the other one."""
    found = {}
    for backend, other in zip(BACKENDS, reversed(BACKENDS), strict=True):
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import torch; torch.set_num_threads(1)\n"
            "from pathlib import Path; from test_two_backends import make, written\n"
            f"print(written(*make(), {backend!r}, Path({str(tmp_path_factory.mktemp(backend))!r})))\n"
            f"assert not [name for name in sys.modules if {other!r} in name and name.startswith('embedl_deploy')]\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        found[backend] = done.stdout.split()[-1]
    assert len(set(found.values())) == len(BACKENDS)
    return found


def test_files_do_not_depend_on_what_was_transformed_before(alone: dict[str, str], tmp_path: Path) -> None:
    net, x = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for backend in (*BACKENDS, *reversed(BACKENDS)):
        assert written(net, x, backend, tmp_path) == alone[backend]
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_two_threads_with_two_backends_and_one_model(alone: dict[str, str], tmp_path: Path) -> None:
    net, x = make()
    with ThreadPoolExecutor(2) as threads:
        for _ in range(2):
            both = threads.map(lambda backend: written(net, x, backend, tmp_path), BACKENDS)
            assert dict(zip(BACKENDS, both, strict=True)) == alone
