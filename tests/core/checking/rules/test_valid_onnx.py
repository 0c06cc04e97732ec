"""What is no ONNX is not ok, whatever the backend."""

import onnx
import onnx_ir as ir
import pytest

from embedl_deploy import check
from embedl_deploy.errors import InputError
from support.onnx_files import FLOAT16, FP8, INT8, OnnxFile


def net(text, opset=18):
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> net {text}')


def found(model):
    return [(finding.rule, finding.operator, finding.message) for finding in check(model).findings]


@pytest.mark.parametrize(
    ("text", "operator", "message"),
    [
        ("(float[2] x) => (float[2] y) { y = Foo(x) }", "Foo", "operator set 18 of ONNX has no operator Foo"),
        ("(float[2] x) => (float[2] y) { y = Gelu(x) }", "Gelu", "operator set 18 of ONNX has no operator Gelu"),
        ("(float[2] x) => (float[4] y) { y = Concat(x, x) }", "Concat", "Required attribute 'axis' is missing."),
        ("(float[2] x) => (float[2] y) { y = Add(x) }", "Add", "has input size 1 not in range [min=2, max=2]."),
        ("(float[2] x) => (float[2] y) { y = Relu<alpha = 1>(x) }", "Relu", "Unrecognized attribute: alpha"),
        ("(bool[2] x) => (bool[2] y) { y = Relu(x) }", "Relu", "has unsupported type: tensor(bool)"),
        ("(float[2,3] x, float[2,4] z) => (float[2,4] y) { y = Mul(x, z) }", "Mul", "Incompatible dimensions"),
        ("(float[2,3] x) => (float y) { y = Softmax<axis = 3>(x) }", "Softmax", "Its actual value is: 3"),
        (
            "(float[2,3] x) => (float[1] y) <int64[1] s = {5}> { a = Unsqueeze(x, s) y = Relu(a) }",
            "Unsqueeze",
            "Unexpected axis value: 5",
        ),
        (
            "(float[2] x) => (int64[2] y) { y = Relu(x) }",
            "Relu",
            "the file declares its output 'y' as INT64; it is FLOAT",
        ),
        (
            "(float[N,2] x) => (float[3,4] y) { y = Relu(x) }",
            "Relu",
            "the file declares its output 'y' with the shape [3, 4]; it is [?, 2]",
        ),
        (
            """(float[2] x, bool c) => (float[2] y) {
            y = If (c) <then_branch = a () => (float[2] u) { u = Foo(x) },
                        else_branch = b () => (float[2] v) { v = Neg(x) }> }""",
            "Foo",
            "has no operator Foo",
        ),
        (
            "(float[2] x, bool c) => (float[2] y) { y = If (c) <then_branch = a () => (float[2] u) { u = Relu(x) }> }",
            "If",
            "Required attribute 'else_branch' is missing.",
        ),
    ],
)
def test_a_node_that_is_no_onnx(text, operator, message, backend):
    backend()
    ((rule, named, said),) = found(net(text))
    assert (rule, named) == ("ONNX-1", operator)
    assert message in said
    assert "Foo" not in text or "ONNX-1" in str(check(net(text)))


def test_a_domain_of_onnx_that_the_file_does_not_name(backend):
    backend()
    (finding,) = check(net("(float[2] x) => (float[2] y) { y = ai.onnx.ml.Scaler(x) }")).findings
    assert finding.message == "the file asks for no operator set of 'ai.onnx.ml', to which Scaler belongs"


@pytest.mark.parametrize(
    "text",
    [
        "(float[N,3] x) => (float[N,3] y) { y = Relu(x) }",
        "(float[2] x) => (float y) { a = SequenceConstruct(x, x) y = ConcatFromSequence<axis = 0>(a) }",
        "(float[2] x) => (float[2] y) { y = ai.onnx.Relu(x) }",
        """(float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = a () => (float[2] u) { u = Relu(x) },
                    else_branch = b () => (float[2] v) { v = Neg(x) }> }""",
    ],
    ids=["open batch", "sequence", "the long name of the domain", "branches that read from outside"],
)
def test_what_is_onnx(text, backend):
    backend()
    report = check(net(text))
    assert report.ok and report.findings == ()


def test_other_domains_are_left_to_backends(backend):
    backend()
    file = OnnxFile()
    assert found(file.model(file.node("Sparse", file.input(2), domain="com.acme"))) == []


@pytest.mark.parametrize(("kind", "dtype", "opset"), [(FP8, FLOAT16, 17), (INT8, FLOAT16, 17)])
def test_quantizers_of_later_operator_sets_are_left_to_backends(kind, dtype, opset, backend):
    backend()
    file = OnnxFile(opset)
    settings = file.constant(0.05, dtype), file.constant(0, kind)
    y = file.node("Relu", file.pair(file.input(2, dtype=dtype), *settings))
    assert found(file.model(y, dtype=dtype)) == []


@pytest.mark.parametrize("version", [0, 99])
def test_an_operator_set_that_nobody_knows(version, backend):
    backend()
    with pytest.raises(InputError, match=rf"requires operator set {version} of ONNX; the installed onnx .* knows 1 to"):
        check(net("(float[2] x) => (float[2] y) { y = Relu(x) }", version))


class TestOrder:
    """ONNX wants a node behind those that it reads."""

    UNSORTED = "(float[2] x) => (float[2] y) { y = Relu(a) a = Neg(x) }"

    def test_the_message_names_both(self, backend, tmp_path):
        backend()
        onnx.save(net(self.UNSORTED), tmp_path / "m.onnx")
        message = r"reads 'a', which .* \(Neg\) computes further down\. Sort them: "
        for model in (tmp_path / "m.onnx", net(self.UNSORTED), ir.from_proto(net(self.UNSORTED))):
            with pytest.raises(InputError, match=message):
                check(model)

    def test_the_remedy(self, backend):
        backend()
        model = ir.from_proto(net(self.UNSORTED))
        model.graph.sort()
        assert check(model).ok

    @pytest.mark.parametrize(
        "text",
        [
            """(float[2] x, bool c) => (float[2] y) {
            y = If (c) <then_branch = a () => (float[2] u) { u = Relu(z) },
                        else_branch = b () => (float[2] v) { v = Neg(x) }>
            z = Abs(x) }""",
            """(float[2] x, bool c) => (float[2] y) {
            y = If (c) <then_branch = a () => (float[2] u) { u = Relu(w) w = Abs(x) },
                        else_branch = b () => (float[2] v) { v = Neg(x) }> }""",
        ],
        ids=["read by a branch", "within a branch"],
    )
    def test_branches(self, text, backend):
        backend()
        with pytest.raises(InputError, match=r"\(Abs\) computes further down"):
            check(net(text))
