"""What a method for keeping accuracy did at one place, or why it did nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from embedl_deploy.quantize.reporting.causes import recorded_kind
from embedl_deploy.validation.checked import checked

_DECLINED = "declined: "
#: The place of what is said of a correction as a whole: the model's own path, as torch has it.
THE_MODEL = ""


class WhyNotCorrected(Enum):
    """Why a method did nothing at a place; the values are stable, and stand beside the words in JSON.

    Attributes:
        SKIPPED: A selector of ``skip.smooth``.
        SEVERAL_WEIGHTS: A module has several, and only it knows which of them the channels meet.
        SEVERAL_READERS: Others read the tensor between two convolutions.
        READ_SEVERAL_TIMES: The second convolution reads it several times.
        MODULE_CALLED_SEVERAL_TIMES: One of the two convolutions is called more than once.
        CORRECTED_FOR_FIRST_CALL: The module is called more than once, and this is not the first call.
        PRODUCT_CALLED_SEVERAL_TIMES: The product is called more than once.
        HOOKS: The module has hooks, which may not let factors through.
        CHANNELS_DO_NOT_CORRESPOND: The channels of two convolutions do not.
        MODULE_DECLINES: The module cannot scale its outputs, and says why.
        CANNOT_BE_FOLDED: The factors cannot be folded, and must not be an operator of their own.
        NOT_REACHED: The data never reaches the module, or no product of it.
        READ_BY_OTHER_PRODUCTS: A product is multiplied with other tensors as well.
        READ_BY_OTHER_FUNCTIONS: The module reads the tensor besides its products.
        NO_GAIN: No migration strength would reduce the error.
        NO_SINGLE_OPERATOR: It is not clear which operator has the weight.
        OPERATOR_NOT_SUPPORTED: Rounding is not learnt for the operator.
        NOT_SYMMETRIC: Rounding is learnt, and ranges are searched, for symmetric formats only.
        NO_PRODUCT: Ranges are searched for weights of matrix products only.
        INPUTS_UNKNOWN: The module does not call its operator, so that its inputs are not seen.
        OUTPUTS_UNKNOWN: The same, of its outputs.
        NO_BIAS: The operator can have none.
        OTHER_CHANNELS: The output has other channels than the operator.
        LAYER_WORSE: It was taken back, because on samples held back the error of the layer, or of the layers that it is
            about, grew.
        MODEL_WORSE: It was taken back, alone or with all others, because on samples held back the model's outputs got
            worse.
        NO_ZERO_POINT: The format of a tensor allows none, and so no centering.
        SEVERAL_FORMATS: A tensor is quantized in several.
        QUANTIZED_AS_OUTPUT: A tensor is quantized by the module that gives it, whoever reads it.
        PADS: A convolution pads the tensor, and such tensors were to be left as they are.
        PADDINGS_DIFFER: Convolutions that read a tensor pad it differently.
        ON_BOTH_SIDES: The range of a tensor is about as far on both sides of zero.
        NOT_RECORDED: A recipe of an earlier release has the words alone.
    """

    SKIPPED = "skipped"
    SEVERAL_WEIGHTS = "several_weights"
    SEVERAL_READERS = "several_readers"
    READ_SEVERAL_TIMES = "read_several_times"
    MODULE_CALLED_SEVERAL_TIMES = "module_called_several_times"
    CORRECTED_FOR_FIRST_CALL = "corrected_for_first_call"
    PRODUCT_CALLED_SEVERAL_TIMES = "product_called_several_times"
    HOOKS = "hooks"
    CHANNELS_DO_NOT_CORRESPOND = "channels_do_not_correspond"
    MODULE_DECLINES = "module_declines"
    CANNOT_BE_FOLDED = "cannot_be_folded"
    NOT_REACHED = "not_reached"
    READ_BY_OTHER_PRODUCTS = "read_by_other_products"
    READ_BY_OTHER_FUNCTIONS = "read_by_other_functions"
    NO_GAIN = "no_gain"
    NO_SINGLE_OPERATOR = "no_single_operator"
    OPERATOR_NOT_SUPPORTED = "operator_not_supported"
    NOT_SYMMETRIC = "not_symmetric"
    NO_PRODUCT = "no_product"
    INPUTS_UNKNOWN = "inputs_unknown"
    OUTPUTS_UNKNOWN = "outputs_unknown"
    NO_BIAS = "no_bias"
    OTHER_CHANNELS = "other_channels"
    LAYER_WORSE = "layer_worse"
    MODEL_WORSE = "model_worse"
    NO_ZERO_POINT = "no_zero_point"
    SEVERAL_FORMATS = "several_formats"
    QUANTIZED_AS_OUTPUT = "quantized_as_output"
    PADS = "pads"
    PADDINGS_DIFFER = "paddings_differ"
    ON_BOTH_SIDES = "on_both_sides"
    NOT_RECORDED = "not_recorded"


_WORDS = {
    WhyNotCorrected.SKIPPED: "skip: {selector}",
    WhyNotCorrected.SEVERAL_WEIGHTS: "only {module} knows which of its weights the channels meet",
    WhyNotCorrected.SEVERAL_READERS: "{source} feeds {count} users",
    WhyNotCorrected.READ_SEVERAL_TIMES: "{reader} reads {source} {count} times",
    WhyNotCorrected.MODULE_CALLED_SEVERAL_TIMES: "a module is called more than once",
    WhyNotCorrected.CORRECTED_FOR_FIRST_CALL: (
        "the module is called more than once, and was corrected for its first call"
    ),
    WhyNotCorrected.PRODUCT_CALLED_SEVERAL_TIMES: (
        "the product in {module} is called {count} times, and its weight cannot make up for a division at each call"
    ),
    WhyNotCorrected.HOOKS: "{module} has hooks, which may not let factors through; remove them",
    WhyNotCorrected.CHANNELS_DO_NOT_CORRESPOND: "the channels do not correspond",
    WhyNotCorrected.MODULE_DECLINES: "{reason}",
    WhyNotCorrected.CANNOT_BE_FOLDED: "cannot be folded into {node} ({reason})",
    WhyNotCorrected.NOT_REACHED: "the data never reaches it, or the module does not feed its input to its product",
    WhyNotCorrected.READ_BY_OTHER_PRODUCTS: "{product} is multiplied with something else too",
    WhyNotCorrected.READ_BY_OTHER_FUNCTIONS: "the module reads it by {function} too, besides its products",
    WhyNotCorrected.NO_GAIN: "no migration strength would reduce the error",
    WhyNotCorrected.NO_SINGLE_OPERATOR: (
        "the module has not exactly one convolution, Linear or Embedding that the weight could be of"
    ),
    WhyNotCorrected.OPERATOR_NOT_SUPPORTED: "rounding is not learnt for {operator}",
    WhyNotCorrected.NOT_SYMMETRIC: "it is for symmetric formats only",
    WhyNotCorrected.NO_PRODUCT: "ranges are searched for weights of Linear only, not of {operator}",
    WhyNotCorrected.INPUTS_UNKNOWN: "the module does not call its operator, so its inputs are unknown",
    WhyNotCorrected.OUTPUTS_UNKNOWN: (
        "the module does not call its operator, or a part around it, so its outputs are unknown"
    ),
    WhyNotCorrected.NO_BIAS: "{operator} has no bias",
    WhyNotCorrected.OTHER_CHANNELS: (
        "the output has not the operator's channels, so its means say nothing about the bias"
    ),
    WhyNotCorrected.LAYER_WORSE: "taken back: the squared error of its outputs was {ratio} times as large on {samples}",
    WhyNotCorrected.MODEL_WORSE: ("taken back{others}: an SQNR of {after} dB on {samples}, {before} dB without"),
    WhyNotCorrected.NO_ZERO_POINT: "{reason}",
    WhyNotCorrected.SEVERAL_FORMATS: "its readers quantize it in several formats",
    WhyNotCorrected.QUANTIZED_AS_OUTPUT: "it is quantized by the module that gives it, whoever reads it",
    WhyNotCorrected.PADS: "it pads its input, and padded=False leaves that as it is",
    WhyNotCorrected.PADDINGS_DIFFER: "its readers pad it differently",
    WhyNotCorrected.ON_BOTH_SIDES: "its range is about as far on both sides of zero",
    WhyNotCorrected.NOT_RECORDED: "{reason}",
}


@dataclass(frozen=True)
class NotCorrected:
    """Why a method did nothing at a place.

    Attributes:
        why: The kind.
        data: What the words are about, by name.
        reader: The one of several readers that it is about.
    """

    why: WhyNotCorrected
    data: Mapping[str, object] = field(default_factory=dict)
    reader: str = ""

    def __str__(self) -> str:
        words = _WORDS[self.why].format(**self.data)
        return f"{self.reader}: {words}" if self.reader else words


def not_corrected(why: WhyNotCorrected, **data: object) -> NotCorrected:
    """A reason with what it is about."""
    return NotCorrected(why, data)


@checked
@dataclass(frozen=True)
class Correction:
    """What a method that keeps accuracy did to one layer.

    Attributes:
        what: The method.
        where: A module's path, or a node's name; empty for what became of the model as a whole.
        outcome: What was done; where nothing was, why not.
        cause: The kind of reason why nothing was done; ``None`` where something was.
    """

    what: str
    where: str
    outcome: str
    cause: WhyNotCorrected | None = None

    @property
    def declined(self) -> bool:
        """Whether nothing was done."""
        return self.cause is not None

    @property
    def is_of_the_model(self) -> bool:
        """Whether it is about the correction as a whole: how it was judged."""
        return self.where == THE_MODEL

    def to_dict(self) -> dict[str, str | None]:
        """For JSON."""
        cause = None if self.cause is None else self.cause.value
        return {"what": self.what, "where": self.where, "outcome": self.outcome, "cause": cause}


def correction(what: str, where: str, done: str | NotCorrected, *, besides: str = "") -> Correction:
    """What came of a method at a place.

    Args:
        what: The method.
        where: A module's path, or a node's name.
        done: What it did, in words, or why it did nothing.
        besides: What was done although it did nothing, in words.
    """
    if isinstance(done, str):
        return Correction(what, where, done)
    return Correction(what, where, f"{_DECLINED}{done}{besides}", done.why)


def recorded_correction(entry: Mapping[str, Any]) -> Correction:
    """A correction from what :meth:`Correction.to_dict` gave, in this release or an earlier one."""
    cause = recorded_kind(WhyNotCorrected, entry)
    if cause is None and entry["outcome"].startswith(_DECLINED):  # recipes had no causes once
        cause = WhyNotCorrected.NOT_RECORDED
    return Correction(entry["what"], entry["where"], entry["outcome"], cause)
