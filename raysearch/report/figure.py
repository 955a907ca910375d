"""Provides a matplotlib figure for notebooks without pyplot, which would choose a backend for the
user, and draws the figure of a scan.

Invariants: texts are literal: a "$" starts no formula, and names contain no line breaks; a
character without a font is drawn as a box, without a warning.
"""

import importlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from raysearch.visible_text import shorten, visible, visible_lines

_LONGEST = 40
"""Maximum of characters of a token."""
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
        with self._literally():
            super().draw(renderer)

    def get_tightbbox(self, *args: Any, **options: Any) -> Any:
        """Measures like matplotlib, with literal texts, before they are drawn."""
        with self._literally():
            return super().get_tightbbox(*args, **options)

    def box_of(self, artist: Artist) -> Bbox | None:
        """Returns what an artist takes up, in dots; None for nothing."""
        canvas = self.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        with self._literally():
            return artist.get_tightbbox(canvas.get_renderer())

    @contextmanager
    def _literally(self) -> Iterator[None]:
        self._make_literal()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            yield

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

    def png(self, dpi: int = 200) -> bytes:
        """Returns the figure as a PNG file."""
        return self.file("png", dpi)

    def file(self, kind: str, dpi: int = 200) -> bytes:
        """Returns the figure as a file: png, or pdf and svg with text as text; fonts are embedded
        in a PDF. Neither holds a date, so that one run gives the same bytes each time."""
        buffer = BytesIO()
        dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
        with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "raysearch"}):
            self.savefig(buffer, format=kind, dpi=dpi, metadata=dates.get(kind))
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png(dpi=140)


@cache
def _more_fonts() -> tuple[str, ...]:
    here = {font.name for font in fontManager.ttflist}
    return tuple(name for name in _MORE_FONTS if name in here)


def without_glyphs(text: str) -> str:
    """Returns the different characters of `text` that no font of a picture has."""
    missing = {ord(c) for c in text if not c.isspace()}
    for family in ("DejaVu Sans", *_MORE_FONTS):
        for path in {f.fname for f in fontManager.ttflist if f.name == family} if missing else ():
            missing -= set(get_font(path).get_charmap())
    return "".join(map(chr, sorted(missing)))


def scan_picture(
    title: str,
    label: str,
    layers: Sequence[int | None],
    tokens: Sequence[str],
    values: Sequence[Sequence[float]],
    words: Sequence[Sequence[str]],
) -> Picture:
    """Draws `values` by layer and token, with `words` as text in the cells; the middle colour is
    zero."""
    reach = max((abs(v) for row in values for v in row), default=0.0) or 1.0
    longest = max((len(shorten(w, _LONGEST)) for row in words for w in row), default=0)
    cell = max(0.62, 0.075 * longest)
    figure = Picture(
        figsize=(max(cell * len(tokens) + 1.9, 5.2), max(0.2 * len(layers), 1.6) + 1.5),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(
        values, origin="lower", aspect="auto", cmap=colormaps["RdBu_r"], vmin=-reach, vmax=reach
    )
    axes.set_xticks(range(len(tokens)), [_token(token) for token in tokens], fontsize=8)
    axes.set_yticks(
        range(len(layers)), ["-" if layer is None else str(layer) for layer in layers], fontsize=7
    )
    axes.set_xlabel("token (beneath: the source's)", fontsize=8)
    axes.set_ylabel("layer", fontsize=8)
    axes.set_title(visible_lines(title), fontsize=10, loc="left")
    for y, row in enumerate(words):
        for x, word in enumerate(row):
            _write_word(axes, (x, y), word, abs(values[y][x]) > 0.6 * reach)
    figure.colorbar(image, ax=axes).set_label(visible(label), fontsize=8)
    return figure


def _write_word(axes: Axes, at: tuple[int, int], word: str, is_dark: bool) -> None:
    """Writes a word into a cell, whose colour may be dark."""
    short, ink = shorten(word.strip(), _LONGEST), "white" if is_dark else "black"
    axes.text(*at, short, ha="center", va="center", fontsize=6, color=ink)


def _token(token: str) -> str:
    """Returns the base's token, with the source's below it if that differs."""
    lines = token.split("\n")
    both = lines if len(lines) == 2 and all(lines) else [token]
    return "\n".join(shorten(line.strip(" "), _LONGEST) or "␣" for line in both)
