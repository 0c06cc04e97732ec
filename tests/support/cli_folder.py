"""The folder that tests of the command line work in."""

from pathlib import Path

from onnx import TensorProto, helper


def left_behind(folder: Path) -> list[str]:
    """What a command has left there, hidden files included."""
    there = {"nets.py", "damaged.py", "data.npy", "images", "__pycache__"}
    return sorted(path.name for path in folder.iterdir() if path.name not in there)


def small_onnx(node: str = "relu") -> bytes:
    """An ONNX file with one node of that name."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name=node)], "small", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content
