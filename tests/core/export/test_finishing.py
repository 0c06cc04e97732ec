"""What a backend's last changes leave behind is put in order."""

import onnx_ir as ir

from embedl_deploy.export.finishing import finish_for

_TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[N] x) => (float[N] y) {
    a = Relu (x)
    y = Add (a, a)
}
"""


class Adding:
    """A backend that puts a node in front of each input of Add, both of one name, and leaves one behind."""

    def finish_onnx(self, model: ir.Model) -> bool:
        adder = model.graph[-1]
        for position in (0, 1):
            node = ir.Node("", "Neg", [adder.inputs[position]], name="negated")
            node.outputs[0].name = "negated"
            model.graph.insert_before(adder, node)
            adder.replace_input_with(position, node.outputs[0])
        unused = ir.Node("", "Abs", [model.graph.inputs[0]], name="unused")
        model.graph.insert_before(adder, unused)
        return True


def test_names_given_twice_and_unused_nodes() -> None:
    model = ir.from_onnx_text(_TEXT)
    finish_for(model, Adding())
    assert [node.op_type for node in model.graph] == ["Relu", "Neg", "Neg", "Add"]
    names = [node.outputs[0].name for node in model.graph]
    assert names[:2] == ["a", "negated"]
    assert names[-1] == "y"
    assert len(set(names)) == 4
    assert len({node.name for node in model.graph}) == 4
    assert [value.name for value in model.graph[-1].inputs] == names[1:3]
