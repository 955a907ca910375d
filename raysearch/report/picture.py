"""A matplotlib figure that a notebook shows without pyplot, whose import would choose a backend for the user."""

import importlib
import sys
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure


class Picture(Figure):
    """A figure that shows itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        if (
            "IPython" in sys.modules
        ):  # to its end: matplotlib looks into it, and the thread of MLflow may be in the middle of its import
            importlib.import_module("IPython")
        super().__init__(*args, **options)

    def png(self, dpi: int = 130) -> bytes:
        """The picture as a file."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png(dpi=100)
