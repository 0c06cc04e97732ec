"""What corrections of the text detector's quantization are worth on crops that nothing was fitted to.

Six crops calibrate, four others judge, one at a time: print, handwriting, print, handwriting. Corrections hold two of
the six back, and take back what does harm there; how each was judged stands below the table.
"""

from typing import Any

import torch
from rich.table import Table

from embedl_deploy import TransformationResult
from embedl_deploy.quantize import QuantConfig, quantization_report, quantize
from embedl_deploy.verify import signal_to_noise
from text_crops import text_crops

CALIBRATION_CROPS, JUDGED_CROPS = 6, 4
#: Learned rounding may lose so many dB on a single crop: so much differs between one thread and two.
LOSS = 0.1
#: Rows of the table, the first without corrections.
METHODS: dict[str, dict[str, Any]] = {
    "plain ranges": {},
    "bias correction": {"bias_correction": True},
    "learned rounding": {"learned_rounding": True},
}


@torch.no_grad()
def compare_corrections(result: TransformationResult) -> tuple[Table, list[str], bool]:
    """Quantize the transformed detector by each method.

    Returns:
        SQNR of the score maps of each judged crop, in dB; what the reports say of corrections that were judged; and
        whether no correction is below plain ranges over all of them, and learned rounding on none, but for ``LOSS``.
    """
    calibration, judged = text_crops(CALIBRATION_CROPS, right=False), text_crops(JUDGED_CROPS, right=True)
    wanted = result.model(judged)
    table = Table(box=None, pad_edge=False)
    crops = [f"crop {i + 1}" for i in range(JUDGED_CROPS)]
    for column in (f"{CALIBRATION_CROPS} crops calibrate", *crops, "all"):
        table.add_column(column, justify="right" if table.columns else "left")
    over_all, by_crop, told = [], {}, []
    for name, methods in METHODS.items():
        model = quantize(result, [calibration], QuantConfig(policy="all"), progress=False, **methods)
        scores = model(judged)
        by_crop[name] = found = [signal_to_noise(x, y) for x, y in zip(wanted, scores, strict=True)]
        over_all.append(signal_to_noise(wanted, scores))
        table.add_row(name, *(f"{sqnr:.2f} dB" for sqnr in (*found, over_all[-1])))
        corrections = quantization_report(model).corrections
        notes = [c for c in corrections if c.declined or c.is_of_the_model]
        told += [f"{c.what}, {c.where or 'the model'}: {c.outcome}" for c in notes]
    gains = [after - plain for plain, after in zip(by_crop["plain ranges"], by_crop["learned rounding"], strict=True)]
    told.append(f"learned rounding against plain ranges: {', '.join(f'{gain:+.2f}' for gain in gains)} dB")
    no_harm = min(over_all) >= over_all[0] and min(gains) >= -LOSS
    return table, [*told, f"no correction below plain ranges: {'met' if no_harm else 'MISSED'}"], no_harm
