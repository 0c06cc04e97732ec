import sys

from embedl_deploy.tensorrt.compilers.packages import is_installed


def test_a_folder_of_the_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "tensorrt_engines").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("tensorrt_engines")
    (tmp_path / "tensorrt_engines" / "__init__.py").touch()
    sys.path_importer_cache.clear()
    assert is_installed("tensorrt_engines")


def test_what_is_not_there():
    assert not is_installed("no_package_of_this_name")
