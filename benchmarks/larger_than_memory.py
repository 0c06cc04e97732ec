"""The memory that a language model takes while it is quantized from shards, and what is left of a run that is killed.

    python benchmarks/larger_than_memory.py [--layers N] [--folder FOLDER]

A Llama with random weights, 3 GB in float32, is written shard by shard to a temporary folder. It is quantized to INT4
in groups, without data, and to INT8 with SmoothQuant, each in a process of its own, whose resident memory is looked at
a hundred times a second: the most of it, less what it was once everything was imported. The INT8 run is repeated and
killed at three places, and its files are compared with those of the first. The exit code is 1 if a limit is passed or
a file differs.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

#: Memory over the interpreter's own, in bytes.
LIMIT = 1.3e9
#: Seconds into a block, after which a run is killed.
INTO_THE_BLOCK = 3.0
TOKENS, BATCHES = 64, 4


def configuration(layers: int) -> Any:
    """The model's: 750 million parameters with 27 layers."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=32000,
        hidden_size=1536,
        intermediate_size=4096,
        num_hidden_layers=layers,
        num_attention_heads=24,
        num_key_value_heads=4,
        use_cache=False,
        tie_word_embeddings=False,
    )


def empty_model(layers: int) -> Any:
    """The model without weights."""
    import torch
    from transformers import LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    with torch.device("meta"):
        model = LlamaForCausalLM(configuration(layers)).eval()
    model.model.rotary_emb = LlamaRotaryEmbedding(configuration(layers))
    return model


def write_weights(layers: int, folder: Path) -> int:
    """Write random weights, a layer in each file, and their index; returns their size in bytes."""
    import torch
    from safetensors.torch import save_file

    shapes = {name: tuple(tensor.shape) for name, tensor in empty_model(layers).state_dict().items()}
    groups: dict[str, list[str]] = {}
    for name in shapes:
        parts = name.split(".")
        groups.setdefault(".".join(parts[:3]) if "layers" in parts else name, []).append(name)
    weight_map, size = {}, 0
    generator = torch.Generator().manual_seed(0)
    for number, names in enumerate(groups.values(), 1):
        file = f"model-{number:05}-of-{len(groups):05}.safetensors"
        tensors = {name: _random(shapes[name], generator) for name in names}
        save_file(tensors, folder / file)
        weight_map |= dict.fromkeys(names, file)
        size += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return size


def _random(shape: tuple[int, ...], generator: Any) -> Any:
    """As the model is initialized; of a norm's channels one in a hundred stands out, as in trained models."""
    import torch

    if len(shape) > 1:
        return torch.randn(shape, generator=generator) * 0.02
    return torch.ones(shape) + 20 * (torch.rand(shape, generator=generator) < 0.01)


def resident() -> int:
    """Bytes of memory of this process that are resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def quantize_one(case: str, layers: int, weights: str, folder: str) -> dict[str, float]:
    """Quantize once, in this process; memory in bytes and time in seconds."""
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401 - so that it is in memory before the rest

    from embedl_deploy import transform
    from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig
    from embedl_deploy.shards import quantize_shards

    most, done = [resident()], threading.Event()
    before = most[0]

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], resident())

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    torch.manual_seed(0)
    batches = list(torch.randint(0, 32000, (BATCHES, 1, TOKENS)))
    began = time.monotonic()
    result = transform(empty_model(layers), batches[0], backend="tensorrt")
    planned, plan = time.monotonic(), most[0]
    if case == "INT4":
        config = QuantConfig(activation=None, weight=TensorQuantConfig(Precision.INT4, block_size=128))
        report = quantize_shards(result, weights, folder, config=config)
    else:
        report = quantize_shards(result, weights, folder, batches, smooth_quant=0.5)
    ended = time.monotonic()
    done.set()
    watching.join()
    return {
        "interpreter": before,
        "transform": plan - before,
        "memory": most[0] - before,
        "largest block": max(block.bytes_in_memory for block in report.blocks),
        "written": sum(block.bytes_written for block in report.blocks),
        "seconds to transform": planned - began,
        "seconds to quantize": ended - planned,
    }


def start(case: str, layers: int, weights: Path, folder: Path) -> subprocess.Popen[str]:
    """Start a run in a process of its own."""
    command = [sys.executable, __file__, "--one", case, str(weights), str(folder), "--layers", str(layers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run(case: str, layers: int, weights: Path, folder: Path) -> dict[str, float]:
    """A run to its end."""
    process = start(case, layers, weights, folder)
    output, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the run of {case} failed")
    found: dict[str, float] = json.loads(output)
    return found


def kill_behind(blocks: int, case: str, layers: int, weights: Path, folder: Path) -> None:
    """Start a run, and kill it a few seconds after it has finished some blocks."""
    process, state = start(case, layers, weights, folder), folder / "quantization_state.json"
    while not state.exists() or len(json.loads(state.read_text())["found"]["blocks"]) < blocks:
        if process.poll() is not None:
            raise SystemExit(f"the run that was to be killed behind block {blocks} ended before")
        time.sleep(0.05)
    time.sleep(INTO_THE_BLOCK)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def rows(layers: int, place: Path) -> Iterator[tuple[str, str, bool]]:
    """What was found, and whether it is as it should be."""
    weights = place / "weights"
    weights.mkdir()
    size = write_weights(layers, weights)
    yield "weights, float32", f"{size / 1e9:.2f} GB", True
    for case in ("INT4", "INT8"):
        name = "INT4 in groups of 128" if case == "INT4" else "INT8 with SmoothQuant"
        found = run(case, layers, weights, place / case)
        memory = f"{found['memory'] / 1e9:.2f} GB over {found['interpreter'] / 1e9:.2f} GB of the interpreter"
        yield f"{name}: most memory", f"{memory} (limit {LIMIT / 1e9} GB)", found["memory"] <= LIMIT
        yield "  of which transform", f"{found['transform'] / 1e9:.2f} GB", True
        yield "  largest block", f"{found['largest block'] / 1e9:.2f} GB", True
        yield "  written", f"{found['written'] / 1e9:.2f} GB", True
        took = f"{found['seconds to transform']:.0f} s to transform, {found['seconds to quantize']:.0f} s to quantize"
        yield "  took", took, True
    killed, places = (
        place / "killed",
        (1, layers // 2 + 1, layers + 1),
    )  # in the first layer, half-way, in the last block
    for blocks in places:
        kill_behind(blocks, "INT8", layers, weights, killed)
    run("INT8", layers, weights, killed)
    same = digests(killed) == digests(place / "INT8")
    yield (
        f"INT8, killed behind blocks {', '.join(map(str, places))}",
        "the same files" if same else "OTHER",
        same,
    )


def main() -> int:
    """Measure and print the table; or, with ``--one``, do one run and print what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=27, help="layers of the model (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to write; 12 GB are needed, and deleted afterwards")
    parser.add_argument("--one", nargs=3, metavar=("CASE", "WEIGHTS", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    from torchvision_import import import_torchvision

    import_torchvision()  # transformers looks for it
    if options.one is not None:
        case, weights, folder = options.one
        sys.stdout.write(json.dumps(quantize_one(case, options.layers, weights, folder)))
        return 0
    from measurement import describe_machine, make_console

    console = make_console()
    console.print(describe_machine(os.cpu_count() or 1, "float32 Llama"), highlight=False)
    table = Table("what", "found", "")
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        passed = True
        for what, found, right in rows(options.layers, Path(place)):
            table.add_row(what, found, "" if right else "✗")
            passed = passed and right
    console.print(table)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
