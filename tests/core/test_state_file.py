"""What long work saves: by whom it is read again, and what is refused."""

import json
import threading

import pytest

from embedl_deploy.errors import FileWriteError, InputError
from embedl_deploy.state_file import StateFile

OF = {"function": "tune", "model": "abc", "target": "sm89"}


@pytest.fixture
def path(tmp_path):
    kept = StateFile(tmp_path / "state.json", OF)
    with kept.in_use() as found:
        assert found == {}
        kept.save({"values": {"a": 0.1, "b": None}})
    return kept.path


def read(path, of=OF):
    with StateFile(path, of).in_use() as found:
        return found


def test_what_was_saved_is_read_again(path):
    assert read(path) == {"values": {"a": 0.1, "b": None}}
    assert [file.name for file in path.parent.iterdir()] == ["state.json"]


@pytest.mark.parametrize("name", OF)
def test_the_state_of_something_else_is_refused_by_name(path, name):
    with pytest.raises(InputError, match=f"is the state of another {name}: '{OF[name]}', and this is 'other'"):
        read(path, {**OF, name: "other"})
    with pytest.raises(InputError, match="is the state of another compiler: None, and this is 'x'"):
        read(path, {**OF, "compiler": "x"})


CHANGES = {
    "a value": (lambda plain: plain["found"]["values"].update(a=0.2), "changed after it was written"),
    "another type": (lambda plain: plain["found"].update(values=[]), "changed after it was written"),
    "a missing key": (lambda plain: plain["found"].pop("values"), "changed after it was written"),
    "one more key": (lambda plain: plain["found"].update(more=1), "changed after it was written"),
    "nothing found": (lambda plain: plain.pop("found"), "changed after it was written"),
    "found is a list": (lambda plain: plain.update(found=[]), "changed after it was written"),
    "no checksum": (lambda plain: plain.pop("checksum"), "changed after it was written"),
    "a wrong checksum": (lambda plain: plain.update(checksum=7), "changed after it was written"),
    "another version": (lambda plain: plain.update(version=1), "not a state file of version 2"),
    "no subject": (lambda plain: plain.update(of=[]), "not a state file of version 2"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_by_hand_is_refused(path, change):
    edit, words = CHANGES[change]
    plain = json.loads(path.read_text())
    edit(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(InputError, match=words):
        read(path)


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '"found"', "{}", "\x00", '{"version": NaN}', "[" * 100_000])
def test_what_is_no_state_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(InputError, match="not a state file"):
        read(path)


def test_what_was_cut_off_is_refused(path):
    text = path.read_text()
    for length in range(0, len(text) - 2, 7):
        path.write_text(text[:length])
        with pytest.raises(InputError, match="not a state file"):
            read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read(path)


def test_one_run_at_a_time_uses_it(path):
    refused = []

    def other():
        try:
            read(path)
        except InputError as error:
            refused.append(str(error))

    with StateFile(path, OF).in_use():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert "is used by another run at this moment" in refused[0]
    assert read(path)


def test_many_at_once_are_alone_or_refused(path):
    start, lock, inside, most, outcomes = threading.Barrier(8), threading.Lock(), 0, 0, []

    def work():
        nonlocal inside, most
        kept = StateFile(path, OF)
        start.wait()
        for _ in range(50):
            try:
                with kept.in_use() as found:
                    with lock:
                        inside += 1
                        most = max(most, inside)
                    kept.save({**found, "count": found.get("count", 0) + 1})
                    with lock:
                        inside -= 1
                    outcomes.append("saved")
            except InputError:
                outcomes.append("refused")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert len(outcomes) == 400
    assert read(path)["count"] == outcomes.count("saved")
    assert [file.name for file in path.parent.iterdir()] == ["state.json"]


def test_an_error_gives_the_file_back(path):
    with pytest.raises(KeyError), StateFile(path, OF).in_use():
        raise KeyError
    assert read(path)


def test_leftovers_of_a_killed_run_go_and_other_folders_stay(path):
    half = path.parent / ".state.json.a1b2c3d4"
    half.mkdir()
    (half / "state.json").write_text("{")
    for name in (".state.json.mine", ".other.json.a1b2c3d4", ".state.json.filled00"):
        (path.parent / name).mkdir()
        (path.parent / name / "notes.txt").write_text("mine")
    assert read(path)
    names = {file.name for file in path.parent.iterdir()}
    assert names == {"state.json", ".state.json.mine", ".other.json.a1b2c3d4", ".state.json.filled00"}


def test_numbers_that_json_lacks_are_not_saved(path):
    with pytest.raises(ValueError, match="Out of range"):
        StateFile(path, OF).save({"value": float("nan")})
    assert read(path) == {"values": {"a": 0.1, "b": None}}


def test_where_nothing_can_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FileWriteError, match="no file can be created"),
        StateFile(tmp_path / "file/s.json", OF).in_use(),
    ):
        pass


def test_without_a_path_nothing_is_kept():
    kept = StateFile(None, OF)
    with kept.in_use() as found:
        kept.save({"a": 1})
        assert found == {}
