"""What a notebook shows: a swap in one line, a scan as a table or a picture.

Invariants: frozen values; what they print is all that was measured, in logits; a change is one of
what the model says by itself, whatever answers the user gives.
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from raysearch.report.figure import scan_picture
from raysearch.visible_text import visible

if TYPE_CHECKING:
    from torch import Tensor

    from raysearch.report.figure import Picture


@dataclass(frozen=True, slots=True)
class Answers:
    """The base's and the source's answer, whose logits are compared: one token each, as text and as
    id.

    `said`: what the model says next after base and source, without any intervention, as text;
    `said_ids`: its ids. Another token than the answer where the user gave the answers.
    """

    base: str
    source: str
    base_id: int
    source_id: int
    said: tuple[str, str]
    said_ids: tuple[int, int]

    def difference(self, logits: "Tensor") -> float:
        """logit(source's answer) - logit(base's answer): how far the model leans to the source, in
        logits."""
        return float(logits[self.source_id] - logits[self.base_id])

    @property
    def surprises(self) -> tuple[str, ...]:
        """A sentence for each answer that the model does not say by itself."""
        sides = zip(
            ("base", "source"),
            (self.base, self.source),
            (self.base_id, self.source_id),
            strict=True,
        )
        return tuple(
            f"by itself the model says {said!r} after the {side}, not the given {answer!r}"
            for (side, answer, ours), said, theirs in zip(
                sides, self.said, self.said_ids, strict=True
            )
            if ours != theirs
        )


@dataclass(frozen=True, slots=True)
class Swap:
    """What one interchange changes: the next token, and the logit difference (source's answer -
    base's), `before` and `after`.

    `token`: the next token under the interchange, as text; `token_id`: its id.
    """

    where: str
    answers: Answers
    token: str
    token_id: int
    before: float
    after: float

    @property
    def changed(self) -> bool:
        """Whether the next token is another than the model says after the base by itself."""
        return self.token_id != self.answers.said_ids[0]

    def __str__(self) -> str:
        what = (
            f"{self.answers.said[0]!r} -> {self.token!r}"
            if self.changed
            else f"{self.token!r} stays"
        )
        difference = f"logit({self.answers.source!r}) - logit({self.answers.base!r}): {self.before:+.2f} -> {self.after:+.2f}"
        return "; ".join([f"{self.where}: {what}", difference, *self.answers.surprises])

    __repr__ = __str__


@dataclass(frozen=True, slots=True)
class Scan:
    """An interchange at every layer (None: what is of no layer) and token: of each the next token
    and the logit difference, by both.

    `tokens`: the base's, and the source's beneath where it differs. `next_ids`: the ids of
    `next_tokens`. `path`: how it was run.
    """

    base: str
    source: str
    component: str
    layers: tuple[int | None, ...]
    tokens: tuple[str, ...]
    answers: Answers
    before: float
    next_tokens: tuple[tuple[str, ...], ...]
    next_ids: tuple[tuple[int, ...], ...]
    differences: tuple[tuple[float, ...], ...]
    path: str

    @property
    def changed(self) -> tuple[tuple[bool, ...], ...]:
        """Whether the next token is another than the model says after the base by itself, by
        `layers` and tokens."""
        return tuple(
            tuple(token != self.answers.said_ids[0] for token in tokens) for tokens in self.next_ids
        )

    @property
    def table(self) -> pa.Table:
        """A row for each layer and token: layer, token (index), text, next_token, logit_difference,
        changed."""
        rows = [
            {
                "layer": layer,
                "token": at,
                "text": self.tokens[at],
                "next_token": token,
                "logit_difference": difference,
                "changed": changed,
            }
            for layer, *cells in zip(
                self.layers, self.next_tokens, self.differences, self.changed, strict=True
            )
            for at, (token, difference, changed) in enumerate(zip(*cells, strict=True))
        ]
        return pa.Table.from_pylist(rows)

    def heatmap(self) -> "Picture":
        """Layers upward, tokens across, colour = logit difference; where the next token is another,
        it stands in the cell."""
        title = "\n".join(
            [
                f"{self.component} of “{self.source}”",
                f"put into “{self.base}”",
                *self.answers.surprises,
            ]
        )
        words = [
            [token if changed else "" for token, changed in zip(*cells, strict=True)]
            for cells in zip(self.next_tokens, self.changed, strict=True)
        ]
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
            f"{self.component}: logit({self.answers.source!r}) - logit({self.answers.base!r}); "
            f"without: {self.before:+.2f}",
            head,
        ]
        for layer, changes, differences in zip(
            self.layers, self.changed, self.differences, strict=True
        ):
            cells = [
                f"{d:+.2f}{'*' if c else ' '}" for c, d in zip(changes, differences, strict=True)
            ]
            lines.append(
                f"{'-' if layer is None else layer:>5}  "
                + "  ".join(c.rjust(w) for c, w in zip(cells, wide, strict=True))
            )
        return "\n".join(
            [*lines, f"* another next token than {self.answers.said[0]!r}", *self.answers.surprises]
        )

    __repr__ = __str__
