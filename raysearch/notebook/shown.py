"""What a notebook shows: a swap in one line, a scan as a table or a picture.

Invariants: frozen values; what they print is all that was measured, in logits.
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from raysearch.literal import visible
from raysearch.report.scan_picture import scan_picture

if TYPE_CHECKING:
    from torch import Tensor

    from raysearch.report.picture import Picture


@dataclass(frozen=True, slots=True)
class Answers:
    """The base's and the source's answer: one token each, as text and as id."""

    base: str
    source: str
    base_id: int
    source_id: int

    def difference(self, logits: "Tensor") -> float:
        """logit(source's answer) - logit(base's answer): how far the model leans to the source, in logits."""
        return float(logits[self.source_id] - logits[self.base_id])


@dataclass(frozen=True, slots=True)
class Swap:
    """What one interchange changes: the next token, and the logit difference (source's answer - base's), `before` and `after`."""

    where: str
    answers: Answers
    token: str
    before: float
    after: float

    @property
    def changed(self) -> bool:
        """Whether the next token is another than the base's."""
        return self.token != self.answers.base

    def __str__(self) -> str:
        what = f"{self.answers.base!r} -> {self.token!r}" if self.changed else f"{self.token!r} stays"
        difference = (
            f"logit({self.answers.source!r}) - logit({self.answers.base!r}): {self.before:+.2f} -> {self.after:+.2f}"
        )
        return f"{self.where}: {what}; {difference}"

    __repr__ = __str__


@dataclass(frozen=True, slots=True)
class Scan:
    """An interchange at every layer and token: of each the next token and the logit difference, by `layers` and tokens.

    `tokens`: the base's, and the source's beneath where it differs. `path`: how it was run.
    """

    base: str
    source: str
    component: str
    layers: tuple[int, ...]
    tokens: tuple[str, ...]
    answers: Answers
    before: float
    next_tokens: tuple[tuple[str, ...], ...]
    differences: tuple[tuple[float, ...], ...]
    path: str

    @property
    def table(self) -> pa.Table:
        """A row for each layer and token: layer, token (index), text, next_token, logit_difference, changed."""
        rows = [
            {
                "layer": layer,
                "token": at,
                "text": self.tokens[at],
                "next_token": token,
                "logit_difference": difference,
                "changed": token != self.answers.base,
            }
            for layer, tokens, differences in zip(self.layers, self.next_tokens, self.differences, strict=True)
            for at, (token, difference) in enumerate(zip(tokens, differences, strict=True))
        ]
        return pa.Table.from_pylist(rows)

    def heatmap(self) -> "Picture":
        """Layers upward, tokens across, colour = logit difference; where the next token is another, it stands in the cell."""
        title = f"{self.component} of “{self.source}”\nput into “{self.base}”"
        words = [[token if token != self.answers.base else "" for token in tokens] for tokens in self.next_tokens]
        label = f"logit({self.answers.source!r}) - logit({self.answers.base!r})"
        return scan_picture(title, label, self.layers, self.tokens, self.differences, words)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.heatmap().savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()

    def __str__(self) -> str:
        """The logit differences as a table, starred where the next token is another."""
        labels = [visible(t.replace("\n", " / ")) for t in self.tokens]
        wide = [max(len(label), 8) for label in labels]
        head = "layer  " + "  ".join(label.rjust(w) for label, w in zip(labels, wide, strict=True))
        lines = [
            f"{self.component}: logit({self.answers.source!r}) - logit({self.answers.base!r}); without: {self.before:+.2f}",
            head,
        ]
        for layer, tokens, differences in zip(self.layers, self.next_tokens, self.differences, strict=True):
            cells = [
                f"{d:+.2f}{'*' if t != self.answers.base else ' '}" for t, d in zip(tokens, differences, strict=True)
            ]
            lines.append(f"{layer:5}  " + "  ".join(c.rjust(w) for c, w in zip(cells, wide, strict=True)))
        return "\n".join([*lines, f"* another next token than {self.answers.base!r}"])

    __repr__ = __str__
