"""The public door: arguments are held against the annotations of what is called, before anything is done with them."""

from embedl_deploy.validation.checked import checked
from embedl_deploy.validation.quoting import quoted

__all__ = ["checked", "quoted"]
