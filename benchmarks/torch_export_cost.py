"""What capture by torch.export and an INT8 file cost against torch's own two functions; prints a table.

    python benchmarks/torch_export_cost.py [--rounds N]

Networks have random weights. Both sides are measured in processor time, one right after the other: a capture with the
batch open, as it is by default, against a copy and ``torch.export.export`` with the batch open; and the INT8 file of a
quantized model against ``torch.onnx.export`` of the float model. Capture compares its graph with the model on the
example inputs, and on one of a batch: that is measured apart, and in a row of its own. Running the file in ONNX
Runtime is a check of ours, and no part of it. The exit code is 1 if a ratio is over its limit.
"""

import argparse
import copy
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.capture import ones, ways
from embedl_deploy.quantize import quantize
from measurement import Measurement, describe_machine, make_console, paired, print_measurements, processor_seconds
from torchvision_import import import_torchvision

#: A model and the keyword arguments that it is called with.
Network = tuple[nn.Module, dict[str, Any]]


def bert() -> Network:
    """An encoder of the size of BERT-base: 12 layers of 768."""
    from transformers import BertConfig, BertModel

    tokens = torch.randint(0, 1000, (2, 16))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return BertModel(BertConfig(), add_pooling_layer=False).eval(), inputs


def vit() -> Network:
    """A vision transformer of 12 layers of 192, as small as DeiT-tiny."""
    model = import_torchvision().models.VisionTransformer(64, 16, 12, 3, 192, 768)
    return model.eval(), {"x": torch.randn(2, 3, 64, 64)}


def llama() -> Network:
    """A Llama of 4 layers of 256."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=1000, num_hidden_layers=4, **sizes))
    return model.eval(), {"input_ids": torch.randint(0, 1000, (2, 16)), "use_cache": False}


@contextmanager
def comparisons_timed() -> Iterator[list[float]]:
    """The processor seconds of each comparison of a graph with its model that is made within."""
    times: list[float] = []
    compare = ways.find_disagreement

    def timed(*args: Any, **settings: Any) -> Any:
        start = time.process_time()
        try:
            return compare(*args, **settings)
        finally:
            times.append(time.process_time() - start)

    ways.find_disagreement = ones.find_disagreement = timed  # type: ignore[attr-defined]  # where they look it up
    try:
        yield times
    finally:
        ways.find_disagreement = ones.find_disagreement = compare  # type: ignore[attr-defined]  # as above


def times_of_capture(name: str, make: Callable[[], Network], rounds: int) -> list[Measurement]:
    """A capture by ``torch.export`` without patterns: without its comparison, and with it."""
    model, inputs = make()
    tensors = {key: isinstance(value, torch.Tensor) for key, value in inputs.items()}
    shapes = {key: {0: torch.export.Dim.AUTO} if is_tensor else None for key, is_tensor in tensors.items()}

    def ours() -> float:
        return processor_seconds(lambda: transform(model, (), kwargs=inputs, patterns=[], trace="export"))

    def without_comparison() -> float:
        with comparisons_timed() as times:
            whole = ours()
        assert times, "the graph was compared with its model"
        return whole - sum(times)

    def needed() -> float:
        return processor_seconds(lambda: torch.export.export(copy.deepcopy(model), (), inputs, dynamic_shapes=shapes))

    against = "deepcopy + torch.export.export"
    return [
        paired(f"capture by torch.export, {name}", against, 1.3, without_comparison, needed, rounds),
        paired(f"and compared, {name}", against, 2.0, ours, needed, rounds),
    ]


def time_of_int8_file(rounds: int) -> Measurement:
    """The INT8 file of an encoder of the size of BERT-base."""
    model, inputs = bert()
    result = transform(model, (), kwargs=inputs, backend="tensorrt")
    quantized = quantize(result, [inputs], progress=False)
    with tempfile.TemporaryDirectory() as folder:
        ours, torchs = Path(folder) / "int8.onnx", Path(folder) / "float.onnx"

        def export() -> None:
            export_onnx(quantized, (), ours, kwargs=inputs, dynamic_shapes={}, tolerance=None)

        return paired(
            "export_onnx, BERT-base in INT8",
            "torch.onnx.export, float",
            1.3,
            lambda: processor_seconds(export),
            lambda: processor_seconds(lambda: torch.onnx.export(model, (), torchs, kwargs=inputs, verbose=False)),
            rounds,
        )


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds for each row (default: %(default)s)")
    rounds = parser.parse_args().rounds
    warnings.filterwarnings("ignore", category=FutureWarning)
    import_torchvision()  # transformers imports it
    torch.manual_seed(0)
    networks = {"BERT-base": bert, "a small ViT": vit, "a small Llama": llama}
    rows = [row for name, make in networks.items() for row in times_of_capture(name, make, rounds)]
    rows.append(time_of_int8_file(max(rounds // 2, 1)))
    console = make_console()
    console.print(describe_machine(torch.get_num_threads(), f"torch {torch.__version__}"), highlight=False)
    return 0 if print_measurements(console, rows) else 1


if __name__ == "__main__":
    sys.exit(main())
