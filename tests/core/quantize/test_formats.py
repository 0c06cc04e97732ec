"""The settings of one tensor: which make sense, and their plain form."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedl_deploy import EmbedlDeployError
from embedl_deploy.errors import QuantizationConfigError, QuantizationError
from embedl_deploy.quantize import CalibrationMethod, Precision, TensorQuantConfig


@pytest.mark.parametrize(
    ("precision", "bits", "low", "high"),
    [
        (Precision.INT4, 4, -8, 7),
        (Precision.INT8, 8, -128, 127),
        (Precision.UINT8, 8, 0, 255),
        (Precision.INT7, 7, -64, 63),
        (Precision.INT16, 16, -32768, 32767),
        (Precision.FP8, 8, -448, 448),
        (Precision.NVFP4, 4, -6, 6),
        (Precision.MXFP8, 8, -448, 448),
        (Precision.MXFP4, 4, -6, 6),
    ],
)
def test_formats(precision, bits, low, high):
    assert (precision.bits, precision.low, precision.high) == (bits, low, high)
    assert precision.is_float is ("FP" in precision.name)


@pytest.mark.parametrize(("name", "block"), [("NVFP4", 16), ("MXFP8", 32), ("MXFP4", 32)])
def test_formats_in_blocks(name, block):
    config = TensorQuantConfig(Precision[name])
    assert config.block_size == block and config == TensorQuantConfig(Precision[name], block_size=block)
    assert str(config) == f"{name} blocks of {block} minmax"
    assert config.to_dict() == {"precision": name.lower(), "block_size": block}
    assert TensorQuantConfig(per_channel=True, axis=1).in_precision(Precision[name]) == config
    assert config.in_precision(Precision.INT8) == TensorQuantConfig(per_channel=True)
    assert config.in_precision(Precision[name]) == config
    assert config.in_precision(Precision.UINT8) == config  # several scales: it keeps its own format


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_bits": 7}, ["n_bits=7", "4, 8 or 16"]),
        ({"n_bits": "8"}, ["n_bits is '8'"]),
        ({"n_bits": 4, "precision": Precision.INT16}, ["n_bits=4", "Precision.INT16", "give one of them"]),
        ({"n_bits": 8, "precision": Precision.FP8}, ["n_bits=8", "Precision.FP8"]),
        ({"precision": "int5"}, ["precision is 'int5'", "Precision.INT8", "Precision.FP8"]),
        ({"symmetric": "no"}, ["symmetric is 'no'", "True or False"]),
        ({"percentile": "99"}, ["percentile is '99'", "a number"]),
        ({"axis": -1, "per_channel": True}, ["axis=-1"]),
        ({"precision": Precision.FP8, "symmetric": False}, ["FP8", "symmetric=False", "no zero point"]),
        ({"precision": Precision.UINT8}, ["UINT8", "symmetric=True", "zero point"]),
        ({"percentile": 0}, ["percentile=0"]),
        ({"percentile": 100.1}, ["percentile=100.1"]),
        ({"block_size": 0}, ["block_size=0"]),
        ({"block_size": -4}, ["block_size=-4"]),
        ({"block_size": 4, "per_channel": True}, ["block_size", "per_channel=True"]),
        ({"block_size": 4, "symmetric": False}, ["block_size", "symmetric=False"]),
        ({"per_channel": True, "symmetric": False}, ["per_channel", "symmetric=False"]),
        ({"axis": 1}, ["axis=1", "per_channel=True"]),
        ({"calibration_method": CalibrationMethod.ENTROPY, "symmetric": False}, ["ENTROPY", "asymmetric", "MSE"]),
        ({"calibration_method": CalibrationMethod.ENTROPY, "precision": Precision.FP8}, ["ENTROPY", "FP8", "MSE"]),
        ({"power_of_two": True, "learnable": True}, ["power_of_two", "learnable=True"]),
        ({"learnable": True, "symmetric": False}, ["learnable", "symmetric=False"]),
        ({"precision": Precision.NVFP4, "block_size": 32}, ["NVFP4 with block_size=32", "blocks of 16"]),
        ({"precision": Precision.MXFP8, "per_channel": True}, ["MXFP8 with per_channel=True", "block of 32"]),
        ({"precision": Precision.MXFP4, "power_of_two": True}, ["MXFP4 with power_of_two=True"]),
        ({"precision": Precision.NVFP4, "learnable": True}, ["NVFP4 with learnable=True"]),
        ({"precision": Precision.NVFP4, "symmetric": False}, ["NVFP4 with symmetric=False"]),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(settings, words):
    with pytest.raises(QuantizationConfigError) as caught:
        TensorQuantConfig(**settings)
    assert isinstance(caught.value, (QuantizationError, ValueError, EmbedlDeployError))
    message = str(caught.value)
    assert message.startswith("TensorQuantConfig: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize(("bits", "precision"), [(4, Precision.INT4), (8, Precision.INT8), (16, Precision.INT16)])
def test_bits_are_another_way_to_write_it(bits, precision):
    assert TensorQuantConfig(n_bits=bits) == TensorQuantConfig(precision)
    assert TensorQuantConfig(n_bits=bits, precision=precision) == TensorQuantConfig(precision)
    assert TensorQuantConfig(n_bits=bits).n_bits is None
    assert hash(TensorQuantConfig(n_bits=bits)) == hash(TensorQuantConfig(precision))


def test_the_spelling_of_0_8():
    config = TensorQuantConfig(
        Precision.INT8, symmetric=True, per_channel=False, calibration_method=CalibrationMethod.MINMAX
    )
    assert config == TensorQuantConfig()
    assert TensorQuantConfig(Precision.INT8, True, False, CalibrationMethod.MINMAX) == config


def valid(**settings):
    try:
        return TensorQuantConfig(**settings)
    except QuantizationConfigError:
        return None


configs = st.builds(
    valid,
    precision=st.sampled_from(Precision),
    symmetric=st.booleans(),
    per_channel=st.booleans(),
    calibration_method=st.sampled_from(CalibrationMethod),
    percentile=st.floats(0, 100, exclude_min=True),
    power_of_two=st.booleans(),
    block_size=st.none() | st.integers(1, 128),
    learnable=st.booleans(),
    axis=st.none() | st.integers(0, 3),
).filter(bool)


class TestPlainForm:
    @settings(deadline=None, derandomize=True)
    @given(configs)
    def test_there_and_back_through_json(self, config):
        assert TensorQuantConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    def test_defaults_are_left_out(self):
        assert TensorQuantConfig().to_dict() == {"precision": "int8"}
        assert TensorQuantConfig(n_bits=4, block_size=32).to_dict() == {"precision": "int4", "block_size": 32}

    @pytest.mark.parametrize(
        ("plain", "word"),
        [
            ({"precison": "int8"}, "unknown setting.*precison.*known:.*precision"),
            ({"precision": "int3"}, "'int3'"),
            ({"calibration_method": "median"}, "'median'"),
            ({"precision": "float8_e4m3fn", "symmetric": False}, "symmetric=False"),
        ],
    )
    def test_what_is_no_plain_form(self, plain, word):
        with pytest.raises(QuantizationConfigError, match=word):
            TensorQuantConfig.from_dict(plain)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (TensorQuantConfig(), "INT8 minmax"),
        (TensorQuantConfig(per_channel=True), "INT8 per channel minmax"),
        (TensorQuantConfig(symmetric=False, power_of_two=True), "INT8 asymmetric powers of two minmax"),
        (TensorQuantConfig(n_bits=4, block_size=32), "INT4 blocks of 32 minmax"),
        (TensorQuantConfig(symmetric=False, calibration_method=CalibrationMethod.MSE), "INT8 asymmetric mse"),
    ],
)
def test_in_words(config, words):
    assert str(config) == words
    assert config.shares_one_scale is ("per" not in words and "blocks" not in words)


def test_values_that_mean_the_same_are_taken():
    config = TensorQuantConfig("int16", np.True_, per_channel=True, calibration_method="mse", axis=np.int64(1))
    assert config == TensorQuantConfig(
        Precision.INT16, per_channel=True, calibration_method=CalibrationMethod.MSE, axis=1
    )
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
