"""The thread that carries messages: who counts as silent, and when."""

import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from embedl_deploy.distributed import post
from embedl_deploy.distributed.post import Post
from embedl_deploy.distributed.together import Together
from embedl_deploy.errors import DistributedError

BEAT, SILENCE = 0.01, 0.08


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Signs of life are given, and missed, a hundred times as soon."""
    monkeypatch.setattr(post, "BEAT", BEAT)
    monkeypatch.setattr(post, "SILENCE", SILENCE)


class Busy:
    """A store that answers nobody while it is held; torch's is busy while it looks up a name."""

    def __init__(self):
        self.store, self.free = dist.HashStore(), threading.Event()
        self.free.set()

    def __getattr__(self, name):
        self.free.wait()
        return getattr(self.store, name)


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.001)


def two_that_know_each_other(store):
    posts = [Post(lambda: store, rank, 2) for rank in range(2)]
    for each in posts:
        wait_until(lambda each=each: each.all_here)
    return posts


def test_nobody_is_silent_where_all_waited_for_the_store_or_were_stopped():
    store = Busy()
    posts = two_that_know_each_other(store)
    store.free.clear()
    time.sleep(3 * SILENCE)
    store.free.set()
    beats = [each._beats for each in posts]
    wait_until(lambda: all(each._beats > before + 12 for each, before in zip(posts, beats, strict=True)))
    assert [each.failures for each in posts] == [{}, {}]
    for each in posts:
        each.stop()


def test_one_that_gives_no_sign_is_silent():
    first, second = two_that_know_each_other(dist.HashStore())
    second.stop()
    wait_until(lambda: first.failures)
    assert first.failures[1].startswith("has given no sign of life for 0.08 s")
    first.stop()


def test_a_store_that_is_busy_while_ranks_connect_is_not_silent():
    store = Busy()
    first = Post(lambda: store, 0, 2)
    wait_until(lambda: first._beats)
    store.free.clear()
    end = time.monotonic() + 2 * SILENCE
    while time.monotonic() < end:
        assert first.unanswered() == 0
        time.sleep(BEAT / 2)
    store.free.set()
    second = Post(lambda: store, 1, 2)
    wait_until(lambda: first.all_here)
    store.free.clear()
    wait_until(lambda: first.unanswered() > SILENCE)
    store.free.set()
    for each in (first, second):
        each.stop()


def test_a_store_that_is_gone_when_a_rank_comes_is_told_at_once():
    gone = "connection refused"

    def refuse():
        raise RuntimeError(gone)

    lost = Post(refuse, 1, 2)
    wait_until(lambda: lost.unreachable)
    assert lost.unreachable == gone
    lost.stop()


@pytest.fixture
def members():
    """A group of one that stands for rank 1 of a group of the ranks 3 and 5 of the job."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=60))
    try:
        together = Together(dist.group.WORLD, "work")
        together._members, together.size = (3, 5), 2
        yield together
        together.stop()
    finally:
        dist.destroy_process_group()


def test_messages_have_the_number_that_a_rank_has_in_the_job(members):
    error = members._error({1: "raised X: y."})
    assert str(error) == "work on 2 ranks: rank 1 (5 of the job) raised X: y."
    assert error.ranks == {1: "raised X: y."}


def test_of_a_lost_store_the_rank_that_keeps_it_is_named_though_it_is_no_member(members):
    members._post.unreachable = "closed."
    with pytest.raises(DistributedError) as caught:
        members.check()
    keeps = "rank 0 of the job keeps the store of the group, unless torchrun does"
    assert str(caught.value) == f"work on 2 ranks: {keeps}, which has ended: closed."
    assert caught.value.ranks == {}
