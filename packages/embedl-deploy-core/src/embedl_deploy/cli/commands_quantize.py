"""The command that quantizes: from a model and data to an ONNX file with quantizers."""

from collections.abc import Callable
from pathlib import Path

import click

from embedl_deploy.cli.data import Batches
from embedl_deploy.cli.onnx_options import OnnxFile, export_data, float32_data, float32_text, onnx_options
from embedl_deploy.cli.options import Rewrites, Subject, rewrite_options, subject_options
from embedl_deploy.cli.output import Output, json_option
from embedl_deploy.cli.paths import FileCommand, OutputFile
from embedl_deploy.cli.quantization_options import Quantization, data_options, quantization_options, transform_for_data
from embedl_deploy.files import write_text


@click.command("quantize", cls=FileCommand)
@subject_options
@data_options
@rewrite_options
@quantization_options
@onnx_options
@click.option("--integer-weights", is_flag=True, help="Store weights as integers: a quarter of the size.")
@click.option("--recipe", type=OutputFile(), metavar="FILE", help="Also write how it was quantized, as JSON.")
@json_option
def quantize_command(
    output: Output,
    subject: Callable[[], Subject],
    data: Callable[[Subject], Batches],
    rewrites: Rewrites,
    file: OnnxFile,
    recipe: Path | None,
    integer_weights: bool,
    quantization: Quantization,
) -> None:
    """Rewrite, quantize and calibrate a model, and write ONNX.

    The ONNX file has QuantizeLinear and DequantizeLinear where the hardware wants them.
    """
    from embedl_deploy.quantize import quantization_recipe, quantization_report

    loaded, batches, result = transform_for_data(output, subject, rewrites, data)
    quantized = quantization.quantized(result, batches)
    report = quantization_report(quantized)
    with output.working("exporting"):
        fitted = file.fitted(quantized, loaded, batches)
        exported = file.written(fitted, loaded, integer_weights=integer_weights)
    if recipe is not None:
        write_text(recipe, quantization_recipe(quantized).to_json())
        output.say(f"Wrote {recipe}")
    output.result(
        f"{report}\n{float32_text(fitted)}{exported}",
        {
            "transformation": dict(result.report),
            "quantization": report.to_dict(),
            **float32_data(fitted),
            "export": export_data(exported),
            "calibrated_with": batches.samples,
        },
    )
