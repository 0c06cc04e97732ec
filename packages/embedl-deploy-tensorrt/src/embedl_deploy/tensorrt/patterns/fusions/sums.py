"""What fusions that end in a sum have in common."""

from torch import fx

from embedl_deploy.patterns import dtype_of, is_in_place


def why_not_this_sum(node: fx.Node) -> str | None:
    """Why a sum cannot be computed out of place: ``x += y`` keeps the dtype of ``x``, ``x + y`` takes the wider one."""
    dtypes = [dtype_of(value) for value in node.all_input_nodes]
    if not is_in_place(node) or None in dtypes or len(set(dtypes)) == 1:
        return None
    return f"{node.name} adds {dtypes[-1]} to {dtypes[0]} in place, which keeps the dtype of the first"
