"""One model, in a process of its own: ``python -m zoo.worker FAMILY NAME FILE GIGABYTES STAGES DEVICE BACKEND POLICY``.

What becomes of each stage is a line of JSON in FILE, written at once: a process that dies has told how far it came.
"""

import importlib
import json
import logging
import sys
import warnings
from typing import Any


def main(
    family: str, name: str, file: str, gigabytes: str, stages: str, device: str, backend: str, policy: str
) -> None:
    """Run stages, whose names are joined by commas, of one model; no policy is the backend's own."""
    _limit_memory(float(gigabytes))
    logging.disable(logging.CRITICAL)  # the libraries that models are from
    warnings.simplefilter("ignore")

    import torch

    from torchvision_import import import_torchvision
    from zoo.families import members_of
    from zoo.stages import run_stages

    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # float32 is compared
    import_torchvision()  # transformers and timm import it
    with open(file, "a", encoding="utf-8") as lines:

        def tell(stage: str, outcome: dict[str, Any]) -> None:
            lines.write(json.dumps([stage, outcome]) + "\n")
            lines.flush()

        run_stages(members_of(family)[name], tell, stages.split(","), device, backend, policy or None)


def _limit_memory(gigabytes: float) -> None:
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return  # of Unix
    most = int(gigabytes * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


if __name__ == "__main__":
    main(*sys.argv[1:])
