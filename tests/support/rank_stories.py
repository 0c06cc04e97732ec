"""What happens to ranks that work together: ``python -m support.rank_stories FOLDER`` prints it as JSON."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from embedl_deploy.distributed import post
from embedl_deploy.distributed.together import taking_part
from embedl_deploy.errors import DistributedError, InputError, QuantizationError
from support.ranks import run_ranks

#: Seconds without a sign of life after which a rank counts as gone, here, and how long one that is late is waited for.
SILENCE, PATIENCE = 4.0, 8.0


def stop_for(seconds: float) -> None:
    """SIGSTOP to this process, and SIGCONT from another."""
    if os.fork() == 0:
        time.sleep(seconds)
        os.kill(os.getppid(), signal.SIGCONT)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP)


def gathers(rank: int) -> Any:
    """Values small and large, in order."""
    with taking_part(dist.group.WORLD, "gather") as ranks:
        small = ranks.gather("small", {"rank": rank})
        large = ranks.gather("large", torch.full((rank * 20_000 + 1,), float(rank)))
        again = ranks.gather("again", rank)
        return [small, [[len(x), float(x.sum())] for x in large], again, ranks.rank, ranks.size, ranks.first]


def in_subgroups(rank: int) -> Any:
    """Two groups of one job, at the same time."""
    groups = [dist.new_group([0, 2]), dist.new_group([1])]
    with taking_part(groups[rank % 2], "gather") as ranks:
        found = [ranks.gather("rank", rank), ranks.rank, ranks.size]
    with taking_part(dist.group.WORLD, "wait") as ranks:
        return ranks.gather("found", found)[rank]


def one_raises(rank: int) -> Any:
    """Rank 1, while the others work and look up now and then."""
    with taking_part(dist.group.WORLD, "work") as ranks:
        if rank == 1:
            raise QuantizationError("its data is broken.")
        for _ in range(1000):
            ranks.check()
            time.sleep(0.02)
        return "worked on"


def one_raises_while_others_wait(rank: int) -> Any:
    """Rank 0, which also keeps the store, comes later than the others and fails."""
    with taking_part(dist.group.WORLD, "work") as ranks:
        if rank == 0:
            time.sleep(0.3)
            raise InputError("nothing fits.")
        return ranks.gather("results", rank)


def all_raise_alike(rank: int) -> Any:
    """What is computed from the same values fails on all."""
    with taking_part(dist.group.WORLD, "work") as ranks:
        total = sum(ranks.gather("numbers", rank))
        with ranks.alike():
            raise QuantizationError(f"the sum is {total}.")


def one_is_killed(rank: int) -> Any:
    """The last one, while the others wait for it."""
    with taking_part(dist.group.WORLD, "work") as ranks:
        ranks.gather("numbers", rank)
        if rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return ranks.gather("results", rank)


def the_first_is_killed(rank: int) -> Any:
    """And with it the store of the group."""
    with taking_part(dist.group.WORLD, "work") as ranks:
        ranks.gather("numbers", rank)
        if rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return ranks.gather("results", rank)


def one_is_killed_in_a_collective(rank: int) -> Any:
    """When all have come, and a large value is about to be exchanged."""
    with taking_part(dist.group.WORLD, "work") as ranks:
        if rank == 1:
            gather = dist.all_gather
            dist.all_gather = lambda *args, **settings: os.kill(os.getpid(), signal.SIGKILL) or gather(args)
        return ranks.gather("results", torch.zeros(20_000)) and "gathered"


def one_is_stopped(rank: int) -> Any:
    """The last: its process exists, and does nothing for a while."""
    with taking_part(dist.group.WORLD, "work") as ranks:
        ranks.gather("numbers", rank)
        if rank == 2:
            stop_for(SILENCE + 5)
        return ranks.gather("results", rank)


def the_first_is_stopped(rank: int) -> Any:
    """And with it the store of the group, which does not answer."""
    with taking_part(dist.group.WORLD, "work") as ranks:
        ranks.gather("numbers", rank)
        if rank == 0:
            time.sleep(SILENCE / 2)  # until each has heard of all others
            stop_for(SILENCE + 10)
        return ranks.gather("results", rank)


def one_does_not_come(rank: int) -> Any:
    """It does something else for longer than the others wait."""
    if rank == 1:
        time.sleep(PATIENCE + 1)
        return "slept"
    with taking_part(dist.group.WORLD, "work") as ranks:
        return ranks.gather("results", rank)


def one_does_something_else(rank: int) -> Any:
    """Another function."""
    with taking_part(dist.group.WORLD, "sensitivity" if rank == 1 else "quantize") as ranks:
        ranks.agree({"weights": "a"})
        return "agreed"


def two_differ(rank: int) -> Any:
    """In what they have."""
    with taking_part(dist.group.WORLD, "work") as ranks:
        ranks.agree({"weights": "ab"[rank == 1] * 64, "release": "12"[rank == 2]})
        return "agreed"


def one_is_interrupted(rank: int) -> Any:
    """By Ctrl-C."""
    try:
        with taking_part(dist.group.WORLD, "work") as ranks:
            if rank == 1:
                raise KeyboardInterrupt
            return ranks.gather("results", rank)
    except KeyboardInterrupt:
        time.sleep(1)
        return "interrupted"


def again_after_an_error(rank: int) -> Any:
    """A group is of use after an error that nobody died of."""
    first = ""
    try:
        one_raises(rank)
    except DistributedError as error:
        first = type(error).__name__
    with taking_part(dist.group.WORLD, "work") as ranks:
        return [first, ranks.gather("results", rank)]


STORIES = {
    story.__name__: (story, size)
    for story, size in (
        (gathers, 3),
        (in_subgroups, 3),
        (one_raises, 3),
        (one_raises_while_others_wait, 3),
        (all_raise_alike, 2),
        (one_is_killed, 3),
        (the_first_is_killed, 3),
        (one_is_killed_in_a_collective, 3),
        (one_is_stopped, 3),
        (the_first_is_stopped, 3),
        (one_does_not_come, 2),
        (one_does_something_else, 2),
        (two_differ, 3),
        (one_is_interrupted, 2),
        (again_after_an_error, 2),
    )
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    names = sys.argv[2:] or list(STORIES)
    post.BEAT, post.SILENCE = SILENCE / 8, SILENCE
    told = {}
    for name in names:
        story, size = STORIES[name]
        patience = PATIENCE if story is one_does_not_come else 240
        told[name] = run_ranks(size, story, Path(sys.argv[1]), patience=patience, seconds=300)
    sys.stdout.write(json.dumps(told))
