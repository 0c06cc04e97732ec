"""Peak rates of NVIDIA GPUs, for estimates: dense (no structured sparsity), as NVIDIA's documents have them.

Operations a second of the tensor cores: ``float32`` is TF32, ``float16`` accumulates in float16 on GeForce cards.
"""

from embedl_deploy.engine import Device


def _gpu(name: str, target: str, gigabytes: float, source: str, **tera: float) -> Device:
    """Bandwidth in GB/s, operations in 10¹² a second."""
    rates = {dtype: rate * 1e12 for dtype, rate in tera.items()}
    if "float16" in rates:
        rates["bfloat16"] = rates["float16"]
    return Device(name, target, gigabytes * 1e9, rates, source)


TENSORRT_GPUS = (
    _gpu("T4", "sm75", 320, "NVIDIA T4 datasheet", float16=65, int8=130),
    _gpu("A100 SXM 80GB", "sm80", 2039, "NVIDIA A100 datasheet", float32=156, float16=312, int8=624),
    _gpu("A10", "sm86", 600, "NVIDIA A10 datasheet", float32=62.5, float16=125, int8=250),
    _gpu("RTX 3090", "sm86", 936, "NVIDIA Ampere GA102 whitepaper", float32=35.6, float16=142, int8=284),
    _gpu("L4", "sm89", 300, "NVIDIA L4 datasheet", float32=60, float16=121, int8=242.5, float8_e4m3=242.5),
    _gpu("L40S", "sm89", 864, "NVIDIA L40S datasheet", float32=183, float16=362, int8=733, float8_e4m3=733),
    _gpu(
        *("RTX 4090", "sm89", 1008, "NVIDIA Ada whitepaper"),
        float32=82.6,
        float16=330.3,
        int8=660.6,
        float8_e4m3=660.6,
    ),
    _gpu("H100 SXM", "sm90", 3350, "NVIDIA H100 datasheet", float32=494, float16=989, int8=1979, float8_e4m3=1979),
    _gpu(
        *("RTX 5090", "sm120", 1792, "NVIDIA RTX Blackwell whitepaper"),
        float32=104.8,
        float16=419,
        int8=838,
        float8_e4m3=838,
        float4_e2m1=1676,
    ),
)
