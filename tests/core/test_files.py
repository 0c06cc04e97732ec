"""Files that are written whole or not at all."""

import os

import pytest

from embedl_deploy.files import written_whole


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_appears_at_the_end(tmp_path):
    path = tmp_path / "out.bin"
    with written_whole(path) as temporary:
        assert temporary.name == path.name
        assert temporary.parent.parent == tmp_path, "on the same file system"
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert entries(tmp_path) == ["out.bin"]


def test_parent_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "out.bin"
    with written_whole(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"


def test_companions_are_moved_first(tmp_path, monkeypatch):
    moved = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(os.path.basename(b)), replace(a, b)))
    path = tmp_path / "m.bin"
    with written_whole(path) as temporary:
        temporary.write_text("names the others")
        for name in ("z.data", "a.data"):
            (temporary.parent / name).write_text(name)
    assert moved == ["a.data", "z.data", "m.bin"]
    assert entries(tmp_path) == ["a.data", "m.bin", "z.data"]
    assert (tmp_path / "z.data").read_text() == "z.data"


def test_replaces_an_older_file_and_its_companion(tmp_path):
    path, companion = tmp_path / "m.bin", tmp_path / "m.data"
    path.write_text("old")
    companion.write_text("old")
    with written_whole(path) as temporary:
        temporary.write_text("new")
        (temporary.parent / "m.data").write_text("new")
        assert path.read_text() == companion.read_text() == "old"
    assert path.read_text() == companion.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_remains_of_a_failure(tmp_path, error):
    path = tmp_path / "m.bin"
    path.write_text("old")
    with pytest.raises(error), written_whole(path) as temporary:
        temporary.write_text("half")
        (temporary.parent / "m.data").write_text("half")
        raise error
    assert entries(tmp_path) == ["m.bin"]
    assert path.read_text() == "old"


def test_a_block_that_writes_nothing_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "m.bin"):
        pass
    assert entries(tmp_path) == []


def test_permissions_are_those_of_a_new_file(tmp_path):
    plain, whole = tmp_path / "plain", tmp_path / "whole"
    plain.write_text("x")
    with written_whole(whole) as temporary:
        temporary.write_text("x")
    assert whole.stat().st_mode == plain.stat().st_mode
