"""Conversions that hold for any hardware; a backend lists those it wants."""

from embedl_deploy.conversions.zero_pad import FoldZeroPadIntoConvPattern

__all__ = ["FoldZeroPadIntoConvPattern"]
