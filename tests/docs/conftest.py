"""The documentation's own code is importable here: ``docs/_extensions``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_extensions"))
