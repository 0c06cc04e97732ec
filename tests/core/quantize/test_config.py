"""The settings of a whole model."""

import pytest
from torch import fx, nn

from embedl_deploy.backend import PointKind, QuantPoint
from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.numerics.selectors import describe_selector, selects
from embedl_deploy.quantize import (
    CalibrationMethod,
    LayerQuantConfig,
    ModulesToSkip,
    Precision,
    QuantConfig,
    TensorQuantConfig,
)


def test_by_default_int8_with_weights_per_channel():
    config = QuantConfig()
    assert config.formats == LayerQuantConfig(TensorQuantConfig(), TensorQuantConfig(per_channel=True))
    assert config.exceptions == ModulesToSkip()
    assert "activation=<the hardware's>" in repr(config)


def test_the_spelling_of_0_8():
    module = nn.Linear(1, 1)
    skip = ModulesToSkip(stub={nn.LayerNorm}, weight={module}, smooth={nn.LayerNorm})
    tensor = TensorQuantConfig(
        Precision.INT8, symmetric=True, per_channel=False, calibration_method=CalibrationMethod.MINMAX
    )
    config = QuantConfig(activation=tensor, weight=tensor, skip=skip)
    assert config.exceptions is skip


def test_a_plain_collection_skips_everything():
    config = QuantConfig(skip=["head.*", nn.LayerNorm])
    wanted = frozenset(["head.*", nn.LayerNorm])
    assert config.exceptions == ModulesToSkip(stub=wanted, weight=wanted, smooth=wanted)


per_channel, moving = TensorQuantConfig(per_channel=True), CalibrationMethod.MOVING_AVERAGE


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"activation": Precision.INT8}, ["activation is <Precision.INT8", "expected a TensorQuantConfig"]),
        ({"weight": 8}, ["weight is 8"]),
        ({"activation": per_channel}, ["activation is INT8 per channel", "one scale per tensor"]),
        ({"activation": TensorQuantConfig(block_size=4)}, ["activation is INT8 blocks of 4", "one scale per tensor"]),
        ({"activation": TensorQuantConfig(n_bits=4)}, ["activation is INT4", "INT16, FP8, NVFP4 or MXFP8"]),
        (
            {"weight": TensorQuantConfig(calibration_method=moving)},
            ["weight is calibrated by MOVING_AVERAGE", "MINMAX"],
        ),
        (
            {"weight": TensorQuantConfig(calibration_method=CalibrationMethod.ENTROPY)},
            ["weight is calibrated by ENTROPY"],
        ),
        ({"skip": "head.*"}, ["skip is 'head.*'", "a list, a tuple or a set"]),
        ({"skip": nn.ReLU()}, ["skip is a module of class ReLU"]),
        ({"skip": [7]}, ["skip[0] is 7"]),
        ({"skip_weight_quant_for": nn.Linear}, ["skip_weight_quant_for is", "a list, a tuple or a set"]),
        ({"overrides": {"head.*": per_channel}}, ["overrides['head.*'] is", "a LayerQuantConfig or None"]),
        (
            {"overrides": {"head.*": LayerQuantConfig(per_channel, None)}},
            ["overrides['head.*']: activation is INT8 per channel"],
        ),
        ({"overrides": {7: None}}, ["overrides (a key) is 7"]),
        ({"overrides": ["head.*"]}, ["overrides is ['head.*']", "a dictionary"]),
        ({"policy": 3}, ["policy is 3", "expected a string, a function or None"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_makes_no_sense_is_refused(settings, words):
    with pytest.raises(QuantizationConfigError) as caught:
        QuantConfig(**settings)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["stub", "weight", "smooth"])
def test_exceptions_are_collections_of_selectors(name):
    with pytest.raises(QuantizationConfigError, match=f"ModulesToSkip: {name} is 'head'"):
        ModulesToSkip(**{name: "head"})
    with pytest.raises(QuantizationConfigError, match=rf"ModulesToSkip: {name}\[0\] is 1"):
        ModulesToSkip(**{name: {1}})


@pytest.mark.parametrize("method", [CalibrationMethod.MINMAX, CalibrationMethod.MSE])
def test_calibration_of_weights(method):
    assert QuantConfig(weight=TensorQuantConfig(calibration_method=method)).weight.calibration_method is method


class TestSelectors:
    linear = nn.Linear(1, 1)
    node = fx.Graph().placeholder("x")
    point = QuantPoint(node, "blocks.0.head", nn.Sequential(linear), PointKind.WEIGHT, label="weight")

    def means(self, selector):
        return selects(selector, self.point)

    def test_a_glob_is_over_the_path(self):
        assert self.means("blocks.*") and self.means("*.head") and self.means("blocks.?.head")
        assert not self.means("block.*") and not self.means("head") and not self.means("Blocks.*")

    def test_a_path_means_what_is_inside(self):
        assert self.means("blocks") and self.means("blocks.0") and self.means("bl*s") and self.means("blocks.?")
        assert not self.means("block") and not self.means("blocks.1") and not self.means("0")

    def test_what_a_module_wraps_is_meant_by_its_path_and_not_by_globs(self):
        assert self.means("blocks.0.head.0")
        assert not self.means("*.head.0") and not self.means("blocks.0.head.1")

    def test_a_class_or_a_module_may_be_wrapped(self):
        assert self.means(nn.Linear) and self.means(nn.Sequential) and self.means(self.linear)
        assert not self.means(nn.Conv2d) and not self.means(nn.Linear(1, 1))

    def test_a_predicate_is_asked(self):
        assert self.means(lambda point: point.kind is PointKind.WEIGHT)
        assert not self.means(lambda point: point.kind is PointKind.INPUT)

    def test_in_words(self):
        def is_head(point):
            return True

        assert [describe_selector(s) for s in ("a.*", nn.Linear, self.linear, is_head)] == [
            "'a.*'",
            "Linear",
            "this very Linear",
            "is_head",
        ]
