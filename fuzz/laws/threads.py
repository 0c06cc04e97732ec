"""The law that threads may transform at the same time."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from fuzz.laws.law import Broken, law
from fuzz.laws.subject import Subject


@law(share=0.02)
def threads(subject: Subject) -> None:
    """Three threads that transform at once give what one after another gives, and leave torch as it was."""

    def work(model: nn.Module) -> tuple[str, Any]:
        result = subject.transform(model)
        return str(result.report), result.model

    patched = torch.is_tensor, torch.autocast.__enter__, torch.nn.Module.__call__, torch.nn.Module.__getattr__
    models = [subject.make() for _ in range(3)]  # which draws its weights; the random state is one for all threads
    alone, _ = work(subject.make())
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(work, models))
    if patched != (torch.is_tensor, torch.autocast.__enter__, torch.nn.Module.__call__, torch.nn.Module.__getattr__):
        raise Broken("threads left functions of torch replaced")
    for report, model in results:
        if report != alone:
            raise Broken("a thread's report is another than that of one alone")
        subject.agree(subject.run(model), subject.outputs, "in a thread")
