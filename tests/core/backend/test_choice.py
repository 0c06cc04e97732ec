"""Which backend is used: the nearest choice wins, and a choice ends where its block ends."""

import asyncio
import threading

import pytest
from torch import nn

from embedl_deploy import transform
from embedl_deploy.backend import get_backend, reset_backends, set_backend, use_backend
from embedl_deploy.backend.loader import discovery
from embedl_deploy.errors import BackendNotFoundError, PluginError


@pytest.fixture(autouse=True)
def no_choice():
    reset_backends()
    yield
    reset_backends()


def used_by(**choice):
    """Title of the backend that a call of transform uses."""
    return transform(nn.Sequential(nn.ReLU()), **choice).report["backend"]


def test_unknown_names_the_installed():
    with pytest.raises(BackendNotFoundError) as caught:
        transform(nn.ReLU(), backend="nope")
    message = str(caught.value)
    assert message.startswith("No backend 'nope' is installed. Installed: ")
    assert "sensai (embedl-deploy-sensai-stub 0." in message
    assert "tensorrt (embedl-deploy-tensorrt 0." in message
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("slip", ["TensorRT", "tenssort", "trt"])
def test_a_misspelled_or_abbreviated_name_gets_a_suggestion(slip):
    with pytest.raises(BackendNotFoundError, match=f"No backend '{slip}' is installed. Did you mean 'tensorrt'?"):
        transform(nn.ReLU(), backend=slip)


@pytest.mark.parametrize("choose", [set_backend, lambda name: use_backend(name).__enter__(), get_backend])
def test_an_unknown_name_is_refused_wherever_it_is_chosen(choose):
    with pytest.raises(BackendNotFoundError, match="No backend 'nope' is installed"):
        choose("nope")
    with pytest.raises(BackendNotFoundError, match="3 are installed"):
        get_backend()


def test_what_is_no_name():
    with pytest.raises(BackendNotFoundError, match="name is 7; expected a string"):
        get_backend(7)


@pytest.mark.parametrize("name", [None, "tensorrt"])
def test_none_installed(name, monkeypatch):
    monkeypatch.setattr(discovery, "installed_plugins", list)
    with pytest.raises(BackendNotFoundError, match="No backend is installed at all") as caught:
        transform(nn.ReLU(), backend=name)
    assert "pip install embedl-deploy-<target>" in str(caught.value)


def test_several_installed_and_none_chosen():
    with pytest.raises(BackendNotFoundError) as caught:
        transform(nn.ReLU())
    message = str(caught.value)
    assert "Neither patterns nor a backend was given, and 3 are installed" in message
    assert "sensai (embedl-deploy-sensai-stub" in message
    for way in ("backend='onnxruntime'", "use_backend('onnxruntime')", "set_backend('onnxruntime')"):
        assert way in message


def test_the_only_one_installed_needs_no_choice(install, only):
    install("acme")
    only("acme")
    assert used_by() == "acme"


def test_the_only_one_installed_may_be_broken(install, only):
    install("acme", "raise ImportError('no driver')", raw=True)
    only("acme")
    with pytest.raises(PluginError, match="no driver"):
        transform(nn.ReLU())


def test_an_extension_is_no_second_choice(install, only):
    install("acme")
    install("acme.more", "", distribution="acme-more")
    only("acme", "acme.more")
    assert used_by() == "acme"


def test_the_nearest_choice_wins(install):
    install("acme")
    set_backend("tensorrt")
    assert used_by() == "tensorrt"
    with use_backend("sensai") as chosen:
        assert chosen is get_backend() is get_backend("sensai")
        assert used_by() == "sensai"
        assert used_by(backend="acme") == "acme"
        set_backend("acme")
        assert used_by() == "sensai", "the block is nearer than the process"
    assert used_by() == "acme"
    set_backend(None)
    with pytest.raises(BackendNotFoundError):
        used_by()


def test_a_backend_object_is_a_choice_too():
    assert used_by(backend=get_backend("sensai")) == "sensai"


def test_patterns_win_over_a_backend():
    set_backend("tensorrt")
    report = transform(nn.Sequential(nn.Linear(2, 2)), patterns=[]).report
    assert (report["applied_count"], report["backend"]) == (0, None)
    report = transform(nn.Sequential(nn.Linear(2, 2)), patterns=[], backend="sensai").report
    assert report["applied_count"] == 0


def test_blocks_nest():
    with use_backend("sensai"):
        with use_backend("tensorrt"):
            assert used_by() == "tensorrt"
            with use_backend("sensai"):
                assert used_by() == "sensai"
            assert used_by() == "tensorrt"
        assert used_by() == "sensai"
    with pytest.raises(BackendNotFoundError):
        get_backend()


def test_an_exception_ends_the_block():
    set_backend("tensorrt")
    with pytest.raises(ZeroDivisionError), use_backend("sensai"):
        raise ZeroDivisionError
    assert get_backend().name == "tensorrt"


def test_a_failed_inner_choice_leaves_the_outer():
    with use_backend("sensai"):
        with pytest.raises(BackendNotFoundError), use_backend("nope"):
            pass
        assert get_backend().name == "sensai"


def test_a_failed_choice_leaves_the_one_before():
    set_backend("sensai")
    with pytest.raises(BackendNotFoundError):
        set_backend("nope")
    assert get_backend().name == "sensai"


def in_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_a_block_is_of_its_thread_only():
    set_backend("tensorrt")
    with use_backend("sensai"):
        assert in_thread(lambda: get_backend().name) == "tensorrt"

    def choose():
        with use_backend("sensai"):
            entered.set()
            leave.wait(10)
            return get_backend().name

    entered, leave, names = threading.Event(), threading.Event(), []
    thread = threading.Thread(target=lambda: names.append(choose()))
    thread.start()
    assert entered.wait(10)
    assert get_backend().name == "tensorrt"
    leave.set()
    thread.join()
    assert names == ["sensai"]


def test_a_block_is_of_its_task_only():
    async def task(name):
        with use_backend(name):
            await asyncio.sleep(0.01)
            return get_backend().name

    async def both():
        return await asyncio.gather(task("sensai"), task("tensorrt"))

    assert asyncio.run(both()) == ["sensai", "tensorrt"]


def test_a_process_choice_is_of_all_threads():
    in_thread(lambda: set_backend("sensai"))
    assert get_backend().name == "sensai"


def test_loaded_once_even_by_many_threads():
    barrier, found = threading.Barrier(4), []

    def load():
        barrier.wait(10)
        found.append(get_backend("sensai"))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({id(backend) for backend in found}) == 1


def test_reset_finds_what_was_installed_meanwhile(install):
    set_backend("sensai")
    install("acme")  # resets
    assert get_backend("acme").name == "acme"
    with pytest.raises(BackendNotFoundError, match="4 are installed"):
        get_backend()
