"""A matplotlib figure that a notebook shows without pyplot, whose import would choose a backend for the user."""

from io import BytesIO

from matplotlib.figure import Figure


class Picture(Figure):
    """A figure that shows itself."""

    def png(self, dpi: int = 130) -> bytes:
        """The picture as a file."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png(dpi=100)
