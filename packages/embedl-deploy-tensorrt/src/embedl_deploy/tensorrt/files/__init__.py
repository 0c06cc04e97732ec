"""The last changes to files for TensorRT."""
