"""Where the ranks of a process group meet: a part of its store, and the device of its collectives."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

from embedl_deploy.distributed.post import Store
from embedl_deploy.errors import InputError

#: The connection to the store of each group: one for all that its ranks do together, because each costs all of them.
_connections: WeakKeyDictionary[dist.ProcessGroup, Any] = WeakKeyDictionary()


def members_of(group: dist.ProcessGroup, what: str) -> tuple[int, ...]:
    """The ranks of a group, by the numbers that they have in the job.

    Args:
        group: The group.
        what: What is done, for messages.

    Raises:
        InputError: The group was destroyed, or never initialized.
    """
    try:
        return tuple(dist.get_process_group_ranks(group))
    except (ValueError, RuntimeError, KeyError) as error:  # of torch.distributed
        raise InputError(
            f"{what}: the process group is not one of this process, or was destroyed ({error}). Pass one that "
            "init_process_group or new_group made, before destroy_process_group."
        ) from error


def meeting_place(group: dist.ProcessGroup, rank: int) -> Store:
    """A part of a group's store that nobody else uses. The store counts how often a rank comes; all come as often.

    Raises:
        RuntimeError: The store is not there. Of the connection that the group has, this is known at once.
    """
    from torch.distributed.distributed_c10d import PrefixStore  # here, because some builds of torch have none

    given: Any = group.get_group_store()
    given.check(["embedl_deploy"])
    own = _connections.get(group)
    if own is None:
        own = _connections[group] = given.clone()
    place: Any = PrefixStore(f"embedl_deploy/{own.add(f'embedl_deploy/came/{rank}', 1)}", own)
    return place  # type: ignore[no-any-return]  # the stores of torch are untyped here


def device_of_group(group: dist.ProcessGroup) -> torch.device:
    """Where the tensors of a group's collectives have to be."""
    kinds = [entry.partition(":")[0] for entry in str(dist.get_backend_config(group)).split(",")]
    if "cpu" in kinds:
        return torch.device("cpu")
    return torch.device(kinds[0], torch.get_device_module(kinds[0]).current_device())
