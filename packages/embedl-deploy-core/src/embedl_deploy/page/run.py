"""What a page is drawn from: the reports of one run, as far as the page reads them.

Each class lists the entries that the page needs of what a report's ``to_dict`` gives, which is what ``--json`` prints.
Other entries are passed over, so a report may say more without the page having to know.
"""

from dataclasses import dataclass

from embedl_deploy.page.file_reports import Check, Comparison, Engine
from embedl_deploy.page.model_reports import Float32, Quantization, Sensitivity, Transformation
from embedl_deploy.page.search_points import Frontier


@dataclass(frozen=True)
class Run:
    """The reports of one run; ``None`` for what there is none of."""

    transformation: Transformation | None = None
    quantization: Quantization | None = None
    sensitivity: Sensitivity | None = None
    engine: Engine | None = None
    comparison: Comparison | None = None
    check: Check | None = None
    float32: Float32 | None = None
    frontier: Frontier | None = None
    commands: tuple[str, ...] = ()
