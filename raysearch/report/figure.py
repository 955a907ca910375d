"""Provides a matplotlib figure for notebooks without pyplot, which would choose a backend for the
user.

Invariants: texts are literal: a "$" starts no formula, and names contain no line breaks; a
character without a font is drawn as a box, without a warning.
"""

import importlib
import sys
import warnings
from functools import cache
from io import BytesIO
from typing import Any

from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

_MORE_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "WenQuanYi Zen Hei",
    "Noto Sans",
    "Symbola",
    "Noto Emoji",
    "Unifont",
)
"""Fallback fonts, tried in this order if installed."""


class Picture(Figure):
    """A figure that notebooks display as PNG."""

    def __init__(self, *args: Any, **options: Any) -> None:
        if (
            "IPython" in sys.modules
            # completes the import: matplotlib inspects the module, while a tracker's thread may be
            # importing it
        ):
            importlib.import_module("IPython")
        super().__init__(*args, **options)

    def draw(self, renderer: RendererBase) -> None:
        self._make_literal()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            super().draw(renderer)

    def get_tightbbox(self, *args: Any, **options: Any) -> Any:
        """Measures like matplotlib, with literal texts, before they are drawn."""
        self._make_literal()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            return super().get_tightbbox(*args, **options)

    def _make_literal(self) -> None:
        for axes in self.axes:
            for axis in (axes.xaxis, axes.yaxis):
                # creates the labels, which otherwise appear only while drawing
                axis.get_ticklabels()
        for text in self.findobj(Text):
            assert isinstance(text, Text)
            text.set_parse_math(False)
            text.set_usetex(False)
            family = text.get_fontfamily()
            text.set_fontfamily([*family, *(name for name in _more_fonts() if name not in family)])

    def png(self, dpi: int = 130) -> bytes:
        """Returns the figure as a PNG file."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png(dpi=100)


@cache
def _more_fonts() -> tuple[str, ...]:
    here = {font.name for font in fontManager.ttflist}
    return tuple(name for name in _MORE_FONTS if name in here)
