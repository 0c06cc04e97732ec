"""Models that are larger than memory: quantized part by part, from shards and into shards of safetensors."""

from embedl_deploy.shards.api import quantize_shards
from embedl_deploy.shards.exporting import export_quantized
from embedl_deploy.shards.loading import load_quantized
from embedl_deploy.shards.report import BlockReport, ShardsReport
from embedl_deploy.shards.source import Shards, open_shards

__all__ = [
    "BlockReport",
    "Shards",
    "ShardsReport",
    "export_quantized",
    "load_quantized",
    "open_shards",
    "quantize_shards",
]
