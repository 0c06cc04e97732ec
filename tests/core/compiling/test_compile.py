"""compile(): choosing a compiler, writing whole, and explaining refusals; with a compiler that is none."""

import json
import shutil

import onnx
import pytest
from onnx import TensorProto, helper
from torch import nn

from embedl_deploy import compile, export_onnx  # noqa: A004
from embedl_deploy.backend import CompilerRefusedError
from embedl_deploy.engine import EngineReport, LayerKind
from embedl_deploy.errors import BackendNotFoundError, CompileError, CompilerNotFoundError, InputError
from support.compilers import Acme
from support.nets import random_input, scrambled


def test_engine_and_report_are_written_beside_each_other(use, file, tmp_path):
    use(Acme())
    result = compile(file, tmp_path / "deep" / "net.engine", target="big")
    assert result.path.read_bytes() == b"engine"
    assert EngineReport.load(result.report_path) == result.report
    assert result.report_path.name == "net.engine.json"
    report = result.report
    assert (report.model, report.compiler, report.target) == ("net.onnx", "acme 1.0", "big")
    assert report.messages == ("mind the gap",)
    assert str(result) == str(report)


def test_layers_know_their_modules_kinds_and_operations(use, file, tmp_path):
    use(Acme())
    layers = {found.kind: found for found in compile(file, tmp_path / "e").report.layers}
    conv, gemm = layers[LayerKind.CONVOLUTION], layers[LayerKind.GEMM]
    assert (conv.modules, gemm.modules) == (("0",), ("3",))
    assert conv.operations == 2 * (4 * 6 * 6) * (3 * 3 * 3)
    assert gemm.operations == 2 * 5 * 144


def test_the_default_name(use, file):
    use(Acme())
    assert compile(file).path == file.with_suffix(".engine")


def test_the_first_installed_compiler_is_taken(use, file, tmp_path):
    use(Acme("first", missing="no first: install it"), Acme("second"), Acme("third"))
    assert compile(file, tmp_path / "e").report.compiler == "second 1.0"
    assert compile(file, tmp_path / "e", compiler="third").report.compiler == "third 1.0"


def test_nothing_installed(use, file, tmp_path):
    use(Acme("first", missing="pip install first"), Acme("second", missing="pip install second"))
    with pytest.raises(CompilerNotFoundError) as caught:
        compile(file, tmp_path / "e")
    text = str(caught.value)
    assert "first: pip install first" in text
    assert "second: pip install second" in text
    assert "on another machine: acmec net.onnx" in text
    assert not (tmp_path / "e").exists()


def test_a_backend_without_compilers(use, file):
    use()
    with pytest.raises(CompilerNotFoundError, match="'sensai' has no compiler"):
        compile(file)


class TestRefusals:
    def test_node_module_and_rule_are_named(self, use, tmp_path):
        path = tmp_path / "gelu.onnx"
        export_onnx(scrambled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU())).eval(), random_input(1, 3, 8, 8), path)
        nodes = [node for node in onnx.load(path).graph.node if node.op_type not in ("Conv", "Constant")]
        name, kind = nodes[0].name, nodes[0].op_type  # GELU is one operator or several, by the version of the exporter
        use(Acme(refusal=CompilerRefusedError(["no such operator"], ["unknown", name])))
        with pytest.raises(CompileError) as caught:
            compile(path, tmp_path / "e")
        error = caught.value
        assert (error.node, error.module, error.messages) == (name, "1", ("no such operator",))
        assert "acme 1.0 refuses gelu.onnx" in str(error)
        assert f"ONNX node {name!r} ({kind}), from module '1'" in str(error)
        assert error.rules
        assert "What to do:" in str(error)
        assert [entry.name for entry in tmp_path.iterdir()] == ["gelu.onnx"]

    def test_advice_of_the_backend(self, use, file, tmp_path):
        use(Acme(refusal=CompilerRefusedError(["no driver"], advice="Buy one.")))
        with pytest.raises(CompileError, match=r"(?s)It says: no driver\n.*  Buy one"):
            compile(file, tmp_path / "e")

    def test_a_file_without_names(self, use, tmp_path):
        path = tmp_path / "plain.onnx"
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy")
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
        use(Acme(refusal=CompilerRefusedError(["cannot"])))
        with pytest.raises(CompileError, match="It says: cannot") as caught:
            compile(path, tmp_path / "e")
        assert (caught.value.node, caught.value.module) == (None, None)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"compiler": "gcc"}, "compiler is 'gcc'; backend 'sensai' has acme"),
            ({"workspace": 0}, "workspace is 0"),
            ({"timeout": -1.0}, "timeout is -1.0"),
            ({"shapes": {"z": ((1,), (1,), (1,))}}, "shapes names the input 'z'"),
            ({"shapes": {"input": ((1,), (2,))}}, "a tuple of 3"),
            ({"shapes": {"input": ((2,), (1,), (3,))}}, "grow from smallest to largest"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_options(self, use, file, tmp_path, options, message):
        use(Acme())
        with pytest.raises(InputError, match=message):
            compile(file, tmp_path / "e", **options)

    def test_the_place_that_it_would_take_by_default_is_looked_at_too(self, use, file, tmp_path):
        use(Acme())
        shutil.copy(file, tmp_path / "net.onnx")
        (tmp_path / "net.engine").mkdir()
        with pytest.raises(InputError, match=r"net\.engine' is a folder"):
            compile(tmp_path / "net.onnx")
        shutil.copy(file, tmp_path / "other.engine")
        with pytest.raises(InputError, match=r"other\.engine' is the same file as onnx_path"):
            compile(tmp_path / "other.engine")

    def test_paths(self, use, file, tmp_path):
        use(Acme())
        with pytest.raises(InputError, match="is a folder"):
            compile(file, tmp_path)
        with pytest.raises(InputError, match=r"engine_path '.*' is the same file as onnx_path"):
            compile(file, file)
        onnx.save(onnx.load(file), tmp_path / "net.onnx", save_as_external_data=True, location="w", size_threshold=0)
        for options, name in (
            ({"engine_path": tmp_path / "w"}, "engine_path"),
            ({"timing_cache": tmp_path / "w"}, "tim"),
        ):
            with pytest.raises(InputError, match=f"{name}.* is the same file as weights"):
                compile(tmp_path / "net.onnx", **options)
        with pytest.raises(InputError, match="is not there"):
            compile(tmp_path / "nothing.onnx")

    def test_an_unknown_backend(self, file):
        with pytest.raises(BackendNotFoundError, match="nonesuch"):
            compile(file, backend="nonesuch")


def test_a_full_disk_leaves_nothing(use, file, tmp_path, monkeypatch):
    use(Acme())

    def full(*args, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dumps", full)
    with pytest.raises(OSError, match="No space"):
        compile(file, tmp_path / "e")
    assert list(tmp_path.iterdir()) == []
