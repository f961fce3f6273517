"""Figures, tables and the HTML page; the only room that imports plotting.

``poprnn.report`` is this package and, because a page is what most people want from it, it can be called as well:
``pr.report(run, "report.html")`` is :func:`poprnn.report.page.report`. (A package's submodule always takes the place
of whatever the package offers under the same name, so a mere function of that name would vanish at first use.)
"""

import sys
import types
from pathlib import Path
from typing import Any


class _Callable(types.ModuleType):
    """A module that writes a page when called."""

    def __call__(self, *args: Any, **options: Any) -> Path:
        from poprnn.report.page import report

        return report(*args, **options)


sys.modules[__name__].__class__ = _Callable
