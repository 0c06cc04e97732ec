"""Files that are written whole or not at all."""

import errno
import os

import pytest

from embedl_deploy.errors import EmbedlDeployError, FileWriteError, InputError
from embedl_deploy.files import NamedFile, atomic_write, refuse_overwriting


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_appears_at_the_end(tmp_path):
    path = tmp_path / "out.bin"
    with atomic_write(path) as temporary:
        assert temporary.name == path.name
        assert temporary.parent.parent == tmp_path, "on the same file system"
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert entries(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_keeps_its_place(tmp_path, make):
    """As root, a file would take the place of /dev/null."""
    path = tmp_path / "there"
    make(path)
    with pytest.raises(FileWriteError, match="it is a folder, a device or a pipe"), atomic_write(path):
        pytest.fail("the block has run")
    assert not path.is_file()
    assert entries(tmp_path) == ["there"]


def test_parent_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "out.bin"
    with atomic_write(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"


def test_companions_are_moved_first(tmp_path, monkeypatch):
    moved = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(os.path.basename(b)), replace(a, b)))
    path = tmp_path / "m.bin"
    with atomic_write(path) as temporary:
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
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        (temporary.parent / "m.data").write_text("new")
        assert path.read_text() == companion.read_text() == "old"
    assert path.read_text() == companion.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_remains_of_a_failure(tmp_path, error):
    path = tmp_path / "m.bin"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        (temporary.parent / "m.data").write_text("half")
        raise error
    assert entries(tmp_path) == ["m.bin"]
    assert path.read_text() == "old"


def test_a_block_that_writes_nothing_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "m.bin"):
        pass
    assert entries(tmp_path) == []


def test_permissions_are_those_of_a_new_file(tmp_path):
    plain, whole = tmp_path / "plain", tmp_path / "whole"
    plain.write_text("x")
    with atomic_write(whole) as temporary:
        temporary.write_text("x")
    assert whole.stat().st_mode == plain.stat().st_mode


class TestOverwriting:
    @pytest.fixture
    def source(self, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "x.npy").write_text("data")
        return tmp_path / "sub" / "x.npy"

    @pytest.mark.parametrize("kind", ["itself", "symlink", "hard link", "other spelling", "linked folder"])
    def test_an_input_is_kept(self, source, tmp_path, kind):
        target = tmp_path / "target"
        if kind == "symlink":
            target.symlink_to(source)
        elif kind == "hard link":
            target.hardlink_to(source)
        elif kind == "linked folder":
            (tmp_path / "link").symlink_to(source.parent)
            target = tmp_path / "link" / "x.npy"
        else:
            target = source if kind == "itself" else tmp_path / "sub" / ".." / "sub" / "x.npy"
        with pytest.raises(InputError, match=r"-o '.*' is the same file as --data '.*', which would be overwritten"):
            refuse_overwriting([NamedFile("--data", source)], [NamedFile("-o", target)])

    def test_every_file_of_a_folder_is_an_input(self, source, tmp_path):
        folder = NamedFile("--data", tmp_path)
        with pytest.raises(InputError, match="is a file of --data"):
            refuse_overwriting([folder], [NamedFile("-o", source)])
        refuse_overwriting([folder], [NamedFile("-o", source.parent / "new.onnx")])

    @pytest.mark.parametrize(("one", "other"), [("a", "a"), ("a", "A"), ("caf\u00e9", "cafe\u0301"), ("a", "sub/../a")])
    def test_two_outputs_are_two_files(self, source, tmp_path, one, other):
        with pytest.raises(InputError, match="are one file"):
            refuse_overwriting([], [NamedFile("-o", tmp_path / one), NamedFile("--recipe", tmp_path / other)])

    def test_devices_and_pipes_are_not_replaced(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match="is a device or a pipe"):
            refuse_overwriting([], [NamedFile("-o", tmp_path / "pipe")])

    def test_files_that_are_not_there_are_no_obstacle(self, tmp_path):
        refuse_overwriting([NamedFile("x", tmp_path / "gone")], [NamedFile("-o", tmp_path / "new")])
        with pytest.raises(InputError, match="is the same file as"):
            refuse_overwriting([NamedFile("x", tmp_path / "gone")], [NamedFile("-o", tmp_path / "gone")])


def test_where_no_file_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "out.bin"
    message = r"out\.bin' cannot be written: no file can be created in .*file'"
    with pytest.raises(OSError, match=message) as caught, atomic_write(path):
        pass
    assert isinstance(caught.value, EmbedlDeployError)


def test_where_there_is_no_room(tmp_path):
    message = r"out\.bin' cannot be written: No space left on device\. No partial file was left\. Free some space"
    with pytest.raises(FileWriteError, match=message), atomic_write(tmp_path / "out.bin") as temporary:
        temporary.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert entries(tmp_path) == []
