"""Settings of the documentation's build: ``./dev docs``."""

import sys
from pathlib import Path

from embedl_deploy import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "embedl-deploy"
author = "Embedl"
copyright = "Embedl, Apache-2.0"  # noqa: A001 - the name that Sphinx reads
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "handbook"]
smartquotes = False  # messages are quoted as they are printed
exclude_patterns = ["_build", "_extensions"]

html_theme = "furo"
html_title = f"embedl-deploy {version}"
html_static_path = ["_static"]
html_css_files = ["graphs.css"]
html_show_sourcelink = False

myst_heading_anchors = 4  # so that pages can link to headings as forges do

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False  # what torch says of its own methods is in its documentation
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

nitpicky = True
nitpick_ignore_regex = [
    # Names of other projects, whose descriptions would have to be downloaded to be linked to.
    (
        r"py:.*",
        r"(torch|nn|fx|onnx|ir|onnx_ir|numpy|np|npt|click|_pytest|pluggy|types|collections|pathlib|os|enum|abc)\..*",
    ),
    (r"py:.*", r"(torch|OpOverload|Path|Callable|Iterable|Iterator|Sequence|Mapping|Collection|PathLike|Any|optional)"),
    # Names that only the inside uses: in signatures of what is made by functions, and in texts that lead to the source.
    (
        r"py:(class|obj)",
        r"embedl_deploy\.([\w.]+\.)?(_\w+|ModuleT|Checkpoint|CompiledTree|Grid|ModuleDifference|Prepared|SubjectT"
        r"|Equation|Expected|FixedMode|State|StoresFormat)",
    ),
    (r"py:class", r"ExitCode"),
    (r"py:mod", r"embedl_deploy\..*"),
]
