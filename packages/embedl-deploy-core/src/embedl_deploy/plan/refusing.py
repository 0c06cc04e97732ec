"""Errors for objects that cannot be pickled or copied, and what to keep instead.

A plan and its result hold the user's model, whatever that holds, and the backend with its plugins, which are modules of
Python. What is worth keeping can be kept without them.
"""

from typing import NoReturn

from embedl_deploy.errors import InputError


def refuse_storing(what: object) -> NoReturn:
    """Refuse to pickle or copy something.

    Raises:
        InputError: Always.
    """
    raise InputError(
        f"A {type(what).__name__} cannot be pickled or copied, because it holds the model that it was made from, and "
        "the backend. Keep the transformed model, torch.save(result.model, path), or its weights, "
        "result.model.state_dict(), with the plan, result.report.plan.to_json(), to make it again by "
        "load_transformation_plan; and of the report dict(result.report)."
    )
