"""``compile`` by the TensorRT that is here; where there is none, its instruction."""

from embedl_deploy.cli import main
from embedl_deploy.tensorrt.compilers import TENSORRT_COMPILERS
from support.cli_folder import small_onnx


def test_compile_with_what_is_installed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(small_onnx())
    code = main(["compile", "net.onnx", "--backend", "tensorrt"])
    out, err = capsys.readouterr()
    if any(compiler.missing() is None for compiler in TENSORRT_COMPILERS):
        assert code == 0, err
        assert out.startswith("net.onnx: TensorRT") and (tmp_path / "net.engine").stat().st_size > 0
    else:
        assert code == 3 and "pip install" in err


def test_compile_without_a_compiler(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(small_onnx())
    for compiler in TENSORRT_COMPILERS:
        monkeypatch.setattr(type(compiler), "missing", lambda self: f"pip install {self.name}")
    assert main(["compile", "net.onnx", "--backend", "tensorrt"]) == 3
    err = capsys.readouterr().err
    assert "tensorrt: pip install tensorrt\n" in err and "trtexec" in err
    assert not list(tmp_path.glob("*.engine*"))
