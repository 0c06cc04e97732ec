"""Running calibration data through a model to find the scales."""
