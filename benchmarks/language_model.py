"""A small language model that is trained here, on text that every Python installation has.

The text is the documentation of the interpreter: docstrings of the standard library, read from its sources, and the
topics of ``help()``. A twelfth of the texts, chosen by their digests, are held out. Words are cut by a byte-pair
encoding that is learned on the others. The model is a decoder of Llama's architecture. All is seeded; weights are kept
in a folder, and trained again if the text, the settings or torch's version are others.
"""

import ast
import hashlib
import json
import os
import pydoc_data.topics
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from torchvision_import import import_torchvision

#: Folders of the standard library that are no documentation, or not of every installation.
_LEFT_OUT = frozenset({"test", "tests", "idle_test", "site-packages", "lib2to3", "pydoc_data", "ensurepip"})
_SHORTEST = 40  # characters of a text
_END = "<end>"
#: One in so many texts is held out.
_HELD_OUT = 12


@dataclass(frozen=True)
class Settings:
    """What the model is and how it is trained.

    Attributes:
        vocabulary: Pieces of words.
        width: Of the residual stream.
        inner: Of the gated layers.
        layers: Of the decoder.
        heads: Of attention; half as many for keys and values.
        length: Tokens that it sees at once.
        batch: Windows of a step.
        steps: Of training.
        rate: The largest learning rate, after a tenth of the steps.
        seed: Of weights and windows.
    """

    vocabulary: int = 1024
    width: int = 192
    inner: int = 512
    layers: int = 4
    heads: int = 6
    length: int = 128
    batch: int = 16
    steps: int = 600
    rate: float = 2e-3
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """The model and the text that it was trained on and held out from.

    Attributes:
        model: In evaluation mode.
        training: Tokens, (N,).
        held_out: Tokens, (N,).
        bytes_per_token: Of the text held out.
        note: How it was made.
    """

    model: nn.Module
    training: torch.Tensor
    held_out: torch.Tensor
    bytes_per_token: float
    note: str


def texts() -> list[str]:
    """Docstrings of the standard library and topics of ``help()``, each once, in one order everywhere."""
    found = [*_docstrings(Path(sysconfig.get_path("stdlib"))), *pydoc_data.topics.topics.values()]
    return sorted({text.strip() for text in found if len(text) >= _SHORTEST})


def _docstrings(folder: Path) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for file in sorted(folder.rglob("*.py")):
        if _LEFT_OUT.isdisjoint(file.relative_to(folder).parts):
            for node in ast.walk(ast.parse(file.read_bytes())):
                if isinstance(node, documented):
                    yield ast.get_docstring(node) or ""


def split(found: list[str]) -> tuple[list[str], list[str]]:
    """Texts to train on, and those held out; which these are depends on the text alone."""
    kept: tuple[list[str], list[str]] = ([], [])
    for text in found:
        kept[hashlib.sha256(text.encode()).digest()[0] % _HELD_OUT == 0].append(text)
    return kept


def learn_tokenizer(training: list[str], size: int) -> Tokenizer:
    """A byte-pair encoding of ``size`` pieces; any text can be written with it."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[_END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(training, trainer)
    return tokenizer


def tokens_of(tokenizer: Tokenizer, found: list[str]) -> torch.Tensor:
    """All texts, one after the other, each with its end, (N,)."""
    end = tokenizer.token_to_id(_END)
    return torch.tensor([token for text in found for token in (*tokenizer.encode(text).ids, end)])


def make_model(settings: Settings) -> nn.Module:
    """A decoder with random weights."""
    import_torchvision()  # transformers imports it
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.width,
        intermediate_size=settings.inner,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads // 2,
        max_position_embeddings=settings.length,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def loss(model: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of each token but the first of windows, (N, length)."""
    logits = model(windows).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


def train(model: nn.Module, tokens: torch.Tensor, settings: Settings) -> None:
    """Train on windows that start anywhere; in place."""
    draw = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.rate, total_steps=settings.steps, pct_start=0.1, cycle_momentum=False
    )
    model.train()
    for _ in track(range(settings.steps), "training", transient=True):
        starts = torch.randint(len(tokens) - settings.length, (settings.batch,), generator=draw)
        windows = torch.stack([tokens[start : start + settings.length] for start in starts.tolist()])
        optimizer.zero_grad()
        loss(model, windows).backward()  # type: ignore[no-untyped-call]  # of torch
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def trained_model(folder: Path, settings: Settings) -> Trained:
    """The model, from the folder if it was trained there on the same text, with the same settings.

    Args:
        folder: Where weights are kept; made if it is not there.
        settings: What the model is.
    """
    training, held_out = split(texts())
    identity = json.dumps([asdict(settings), torch.__version__, training])
    file = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.pt"
    tokenizer = learn_tokenizer(training, settings.vocabulary)
    model, tokens = make_model(settings), tokens_of(tokenizer, training)
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        note = f"weights from {file}"
    else:
        began = time.perf_counter()
        train(model, tokens, settings)
        note = f"trained in {(time.perf_counter() - began) / 60:.1f} minutes"
        folder.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".part")
        torch.save(model.state_dict(), temporary)
        temporary.replace(file)
    own = tokens_of(tokenizer, held_out)
    size = sum(len(text.encode()) for text in held_out)
    return Trained(model.eval(), tokens, own, size / len(own), note)
