"""The whole demo, with the real network; tests/demo runs every step of it on a small one."""

from rich.console import Console

import main as demo
import quantization
from embedl_deploy.tensorrt.compilers import TensorRTForRTX


def test_whole_demo(tmp_path, monkeypatch):
    # test_efficientnet_goals.py measures accuracy with all crops
    monkeypatch.setattr(quantization, "CALIBRATION_CROPS", 4)
    monkeypatch.setattr(quantization, "HELD_OUT_CROPS", 4)
    monkeypatch.setattr(
        quantization,
        "CONFIGURATIONS",
        {name: (config, {}) for name, (config, _) in quantization.CONFIGURATIONS.items()},
    )
    console = Console(width=120, record=True, quiet=False, file=open(tmp_path / "out.txt", "w"))  # noqa: SIM115
    assert demo.run(tmp_path, console)
    console.file.close()
    text = (tmp_path / "out.txt").read_text()
    for expected in (
        "FusedConvBNReLU            33",
        "Egyptian cat",
        "ONNX Runtime",
        "vit_b_16",
        "No engine was built." if TensorRTForRTX().missing() else "convolution in int8",
        "plan.json",
        "INT8, policy all",
        "On this machine: ONNX Runtime",
        "50 of 50",
    ):
        assert expected in text
    assert "NO" not in [word.strip() for word in text.split()]
    for name in ("efficientnet_lite0.onnx", "int8_all.onnx", "fp8_e4m3.onnx", "plan.json", "predictions.png"):
        assert (tmp_path / name).stat().st_size > 1000
    assert (tmp_path / "int8_all.onnx").stat().st_size < 0.3 * (tmp_path / "float.onnx").stat().st_size
