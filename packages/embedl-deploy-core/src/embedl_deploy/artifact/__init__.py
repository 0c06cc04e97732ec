"""ONNX files as they are found: reading them, and which PyTorch module a node came from."""

from embedl_deploy.artifact.origin import module_of, modules_by_node
from embedl_deploy.artifact.reading import read_onnx

__all__ = ["module_of", "modules_by_node", "read_onnx"]
