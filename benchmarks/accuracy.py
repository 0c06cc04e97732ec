"""What each method for keeping accuracy gains on EfficientNet-Lite0 with ImageNet weights; prints a table.

    python benchmarks/accuracy.py [--only TEXT] [--layers]

Every convolution and the classifier in INT8, symmetric, weights per channel. 64 crops of photographs to calibrate with,
96 others to compare with the float network: SQNR of the logits and share of equal top-1 classes. ``--only`` measures
the rows that have the text in their name; ``--layers`` lists where the noise of the last one comes from. The exit code
is 1 if no row meets the goals.
"""

import argparse
import sys
import time
from dataclasses import replace
from typing import Any

from rich.console import Console

from embedl_deploy import transform
from embedl_deploy.quantize import CalibrationMethod, CenteringConfig, QuantConfig, TensorQuantConfig
from embedl_deploy.sensitivity import sensitivity
from network import load_network
from quantization import CONFIGURATIONS, Accuracy, make_study

#: Per policy: at least so many dB and so large a share, in one row.
GOALS = {"all": Accuracy(25.0, 0.95), "mixed": Accuracy(25.0, 0.92)}
METHODS: dict[str, dict[str, Any]] = {
    "calibration only": {},
    "bias correction": {"bias_correction": True},
    "learned rounding": {"learned_rounding": True},
}


def configurations() -> dict[str, tuple[str, QuantConfig, dict[str, Any]]]:
    """Name → policy, configuration and methods."""
    rows: dict[str, tuple[str, QuantConfig, dict[str, Any]]] = {}
    for policy in GOALS:
        for method in CalibrationMethod:
            if method is CalibrationMethod.MOVING_AVERAGE:
                continue  # for training; over four batches it is the range of the first
            for name, methods in METHODS.items():
                config = QuantConfig(TensorQuantConfig(calibration_method=method), policy=policy)
                rows[f"{policy}, {method.value}, {name}"] = policy, config, methods
    clipped = TensorQuantConfig(calibration_method=CalibrationMethod.MSE)
    centerings = {"centering without padding": CenteringConfig(padded=False), "centering": True}
    for centered, centering in centerings.items():
        for name, methods in METHODS.items():
            config = QuantConfig(clipped, policy="all")
            rows[f"all, mse, {centered}, {name}"] = "all", config, {**methods, "centering": centering}
    rows["weights in float, mse"] = "", QuantConfig(clipped, None, policy="all"), {}
    rows["weights in float, mse, centering"] = "", QuantConfig(clipped, None, policy="all"), {"centering": True}
    asymmetric = replace(clipped, symmetric=False)
    rows["weights in float, mse, asymmetric"] = "", QuantConfig(asymmetric, None, policy="all"), {}
    rows["weights in float"] = "", QuantConfig(weight=None), {}
    rows["activations in float"] = "", QuantConfig(activation=None), {}
    rows["activations in float, bias correction"] = "", QuantConfig(activation=None), METHODS["bias correction"]
    rows["FP8"] = "", *CONFIGURATIONS["FP8 E4M3"]
    return rows


def main() -> int:
    """Measure every configuration and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="measure the rows with this text in their name")
    parser.add_argument("--layers", action="store_true", help="list where the noise of the last row comes from")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    network = load_network()
    study = make_study(network)
    result = transform(network, study.held_out[:2], backend="tensorrt")
    names = {name: row for name, row in configurations().items() if options.only in name}
    if not names:
        parser.error(f"--only: no row has {options.only!r} in its name")
    width = max(map(len, names))
    console.print(f"{'':{width}}  {'SQNR':>8}  same top-1  seconds", highlight=False)
    met = dict.fromkeys(GOALS, False)
    for name, (policy, config, methods) in names.items():
        start = time.perf_counter()
        quantized = study.quantized(result, config, **methods)
        seconds = time.perf_counter() - start
        found = study.accuracy(quantized)
        console.print(f"{name:{width}}  {found.sqnr:5.1f} dB  {found.agreement:10.1%}  {seconds:7.0f}", highlight=False)
        if policy:
            goal = GOALS[policy]
            met[policy] = met[policy] or (found.sqnr >= goal.sqnr and found.agreement >= goal.agreement)
    if options.layers:
        report = str(sensitivity(quantized, study.calibration.split(8), progress=False)).splitlines()
        console.print("\n".join([f"{name}: {report[0]}", *report[1:14]]), highlight=False)
    if options.only:
        return 0
    for policy, goal in GOALS.items():
        verdict = "met" if met[policy] else "MISSED"
        console.print(f"{policy}: {goal.sqnr:g} dB and {goal.agreement:.0%} in one row: {verdict}", highlight=False)
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
