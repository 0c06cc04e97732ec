"""TensorRT's operators that find scales of blocks while an engine runs, as functions of ONNX's own operators.

    TRT_FP4DynamicQuantize      NVFP4: numbers in E2M1, scales of blocks of 16 in E4M3, by a scale of the tensor
    TRT_MXFP8DynamicQuantize    MXFP8: numbers in E4M3, scales of blocks of 32 as exponents with a bias of 127, uint8
    TRT_MXFP8DequantizeLinear   and back

TensorRT's parser has these operators, and does not look at functions of their names. Everybody else can read, check
and run a file that has the functions. NVIDIA's documents name types, block sizes and the scale of the tensor
(https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/_static/operators/DynamicQuantize.html), not how scales are
rounded: here it is done as the formats' own papers have it, in float32.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

DOMAIN = "trt"
FP4_QUANTIZE = "TRT_FP4DynamicQuantize"
MXFP8_QUANTIZE = "TRT_MXFP8DynamicQuantize"
MXFP8_DEQUANTIZE = "TRT_MXFP8DequantizeLinear"

_LARGEST_OF_BLOCKS = """
    wide = Cast <to = 1> (x)
    leading = Shape <end = -1> (x)
    blocks = Constant <value_ints = [-1, {block}]> ()
    in_blocks = Concat <axis = 0> (leading, blocks)
    reshaped = Reshape (wide, in_blocks)
    sizes = Abs (reshaped)
    last = Constant <value_ints = [-1]> ()
    largest = ReduceMax <keepdims = 0> (sizes, last)
    zero = Constant <value_float = 0.0> ()
    one = Constant <value_float = 1.0> ()
    is_zero = Equal (largest, zero)
"""
_TEXTS = {
    FP4_QUANTIZE: """
<opset_import: ["" : {opset}], domain: "trt">
TRT_FP4DynamicQuantize <axis, block_size, scale_type> (x, scale) => (numbers, scales)
{
    {largest}
    high = Constant <value_float = 6.0> ()
    most = Constant <value_float = 448.0> ()
    least = Constant <value_float = 0.001953125> ()
    of_tensor = Cast <to = 1> (scale)
    by_high = Div (largest, high)
    ratio = Div (by_high, of_tensor)
    clipped = Clip (ratio, least, most)
    kept = Where (is_zero, one, clipped)
    scales = Cast <to = 17> (kept)
    in_float = DequantizeLinear (scales, of_tensor)
    numbers = QuantizeLinear <axis = -1, block_size = 16, output_dtype = 23> (wide, in_float)
}""",
    MXFP8_QUANTIZE: """
<opset_import: ["" : {opset}], domain: "trt">
TRT_MXFP8DynamicQuantize <axis, block_size, output_dtype> (x) => (numbers, scales)
{
    {largest}
    least = Constant <value_float = 1.504632769052528e-36> ()
    raised = Max (largest, least)
    power = Cast <to = 24, round_mode = "down"> (raised)
    in_float = Cast <to = 1> (power)
    high = Constant <value_float = 256.0> ()
    divided = Div (in_float, high)
    scale = Where (is_zero, one, divided)
    numbers = QuantizeLinear <axis = -1, block_size = 32, output_dtype = 17> (wide, scale)
    two = Constant <value_float = 2.0> ()
    of_two = Log (two)
    of_scale = Log (scale)
    exponent = Div (of_scale, of_two)
    whole = Round (exponent)
    bias = Constant <value_float = 127.0> ()
    biased = Add (whole, bias)
    scales = Cast <to = 2> (biased)
}""",
    MXFP8_DEQUANTIZE: """
<opset_import: ["" : {opset}], domain: "trt">
TRT_MXFP8DequantizeLinear <axis, block_size, output_dtype> (numbers, scales) => (x)
{
    biased = Cast <to = 1> (scales)
    bias = Constant <value_float = 127.0> ()
    exponent = Sub (biased, bias)
    two = Constant <value_float = 2.0> ()
    scale = Pow (two, exponent)
    wide = DequantizeLinear <axis = -1, block_size = 32> (numbers, scale)
    x = Cast <to : int = @output_dtype> (wide)
}""",
}
_BLOCKS = {FP4_QUANTIZE: 16, MXFP8_QUANTIZE: 32, MXFP8_DEQUANTIZE: 32}


def function(kind: str, opset: int) -> "ir.Function":
    """What one of the operators computes.

    Args:
        kind: Its name.
        opset: Version of ONNX's operator set that the file is written for.
    """
    import onnx
    import onnx_ir as ir

    largest = _LARGEST_OF_BLOCKS.replace("{block}", str(_BLOCKS[kind]))
    text = _TEXTS[kind].replace("{opset}", str(opset)).replace("{largest}", largest)
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))
