"""What fusions that end in a sum have in common."""

from torch import fx

from embedl_deploy.patterns import dtype_of


def why_not_this_sum(node: fx.Node) -> str | None:
    """Why a sum cannot be computed out of place: ``x += y`` keeps the dtype of ``x``, ``x + y`` takes the wider one."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = name in ("iadd", "add_") or str(name).startswith("add_.")
    dtypes = [dtype_of(value) for value in node.all_input_nodes]
    if not in_place or None in dtypes or len(set(dtypes)) == 1:
        return None
    return f"{node.name} adds {dtypes[-1]} to {dtypes[0]} in place, which keeps the dtype of the first"
