"""One page about a run: what was rewritten, what each layer costs and loses, and which kernels it became.

The page is drawn from plain values, what a report's ``to_dict`` gives and ``--json`` prints, and knows no report's
class; so every report can give itself as a page (``to_html``).
"""

from embedl_deploy.page.api import render_page, write_page
from embedl_deploy.page.parts import parts_of
from embedl_deploy.page.search_points import Frontier, FrontierPoint

__all__ = ["Frontier", "FrontierPoint", "parts_of", "render_page", "write_page"]
