"""Models of Hugging Face's transformers from small configurations, and inputs for them."""

import re
from collections.abc import Callable
from typing import Any

import torch

from zoo.member import Made, Member

#: Keyword inputs of a model, made from a generator with a fixed seed.
Inputs = Callable[[torch.Generator], dict[str, Any]]

#: Words that tokens are of.
VOCABULARY = 99
#: Of most models: as their configurations name them.
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
_HEADS = re.compile(
    r"(ForImageClassification|ForObjectDetection|ForSemanticSegmentation|ForInstanceSegmentation|ForUniversalSegmentation"
    r"|ForDepthEstimation|ForMaskedLM|ForSequenceClassification|ForCausalLM|ForConditionalGeneration|ForCTC"
    r"|ForAudioClassification|ForQuestionAnswering|ForKeypointDetection|ForPoseEstimation|ForImageMatting"
    r"|ForImageSuperResolution|ForPreTraining|LMHeadModel|EncoderModel|VisionModel|TextModel|WithProjection|Model)$"
)


def member(
    model: str, inputs: Inputs, *, config: str | None = None, name: str | None = None, **settings: Any
) -> Member:
    """A model by the name of its class.

    Args:
        model: A class of ``transformers``.
        inputs: Inputs for it.
        config: The class of its configuration; by default the model's name with ``Config`` in place of the head.
        name: How it is called in the table; by default by its class.
        settings: Of the configuration. A dictionary with an entry ``"model_type"`` is made into a configuration itself.
    """

    def make() -> Made:
        import transformers

        transformers.logging.set_verbosity_error()
        given = {key: _configuration(transformers, value) for key, value in settings.items()}
        kind = getattr(transformers, config or f"{_HEADS.sub('', model)}Config")
        built = getattr(transformers, model)(kind(**given)).eval()
        return Made(built, kwargs=inputs(torch.Generator().manual_seed(1)))

    return Member(name or model, make)


def _configuration(transformers: Any, value: Any) -> Any:
    if isinstance(value, dict) and "model_type" in value:
        settings = {key: entry for key, entry in value.items() if key != "model_type"}
        return transformers.AutoConfig.for_model(value["model_type"], **settings)
    return value


def pixels(side: int = 64, *, name: str = "pixel_values", channels: int = 3) -> Inputs:
    """An image: (1, channels, side, side)."""
    return lambda generator: {name: torch.randn(1, channels, side, side, generator=generator)}


def tokens(length: int = 16, *, name: str = "input_ids", batch: int = 1) -> Inputs:
    """Sentences: (batch, length), integers."""
    return lambda generator: {name: torch.randint(3, VOCABULARY, (batch, length), generator=generator)}


def sentence(length: int = 16) -> Inputs:
    """A sentence with its mask, as tokenizers give them."""
    return both(tokens(length), lambda _: {"attention_mask": torch.ones(1, length, dtype=torch.int64)})


def both(*several: Inputs) -> Inputs:
    """Inputs of several kinds."""

    def make(generator: torch.Generator) -> dict[str, Any]:
        return {name: value for inputs in several for name, value in inputs(generator).items()}

    return make


def values(name: str, *shape: int) -> Inputs:
    """Numbers by a name."""
    return lambda generator: {name: torch.randn(*shape, generator=generator)}
