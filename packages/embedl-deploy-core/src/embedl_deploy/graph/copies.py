"""Whether an operator that only copies its input can be left out."""

from torch import fx

from embedl_deploy.graph.effects import Effects


def why_copy_is_needed(node: fx.Node) -> str | None:
    """Why a node whose value equals its input cannot be replaced by the input; ``None`` if it can.

    The value of the node is a tensor of its own. Where something overwrites it in place afterwards, the input would be
    overwritten instead, and with it whatever shares memory with the input.

    Args:
        node: A call whose first input is the tensor that it copies.
    """
    effects, source = Effects(node.graph), node.all_input_nodes[0]
    writer = next(effects.written_after(node), None)
    if writer is None:
        return None
    if not effects.owns_its_memory(source):
        return f"{writer.name} overwrites its output in place, and would overwrite what {source.name} belongs to"
    if len(source.users) > 1:
        return f"{writer.name} overwrites its output in place, and the input is used elsewhere"
    return None
