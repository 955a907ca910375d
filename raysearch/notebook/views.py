"""Shows a swap in one line, and a scan as a table or a picture.

Invariants: values are frozen; they print every measurement, in logits; changes are relative to the
model's own prediction, whatever answers the user gives.
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from raysearch.old_paths import OldName
from raysearch.report.figure import scan_picture
from raysearch.visible_text import visible

if TYPE_CHECKING:
    from torch import Tensor

    from raysearch.report.figure import Picture


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of base and source, whose logits are compared: one token each, as text and id.

    `predicted`, `predicted_ids`: the model's own predictions after base and source, as text and
    ids; they differ from the answers if the user gave others.
    """

    base: str
    source: str
    base_id: int
    source_id: int
    predicted: tuple[str, str]
    predicted_ids: tuple[int, int]
    said = OldName("predicted")
    said_ids = OldName("predicted_ids")

    def difference(self, logits: "Tensor") -> float:
        """Returns logit(source's answer) - logit(base's answer)."""
        return float(logits[self.source_id] - logits[self.base_id])

    @property
    def surprises(self) -> tuple[str, ...]:
        """One sentence for each answer that is not the model's own prediction."""
        sides = zip(
            ("base", "source"),
            (self.base, self.source),
            (self.base_id, self.source_id),
            strict=True,
        )
        return tuple(
            f"by itself the model says {predicted!r} after the {side}, not the given {answer!r}"
            for (side, answer, ours), predicted, theirs in zip(
                sides, self.predicted, self.predicted_ids, strict=True
            )
            if ours != theirs
        )


@dataclass(frozen=True, slots=True)
class Swap:
    """The effect of one interchange on the next token and on the logit difference (source - base).

    `before`, `after`: the logit difference without and with it; `token`, `token_id`: the next token
    with it.
    """

    where: str
    answers: Answers
    token: str
    token_id: int
    before: float
    after: float

    @property
    def changed(self) -> bool:
        """Says whether the next token differs from the model's own prediction after the base."""
        return self.token_id != self.answers.predicted_ids[0]

    def __str__(self) -> str:
        what = (
            f"{self.answers.predicted[0]!r} -> {self.token!r}"
            if self.changed
            else f"{self.token!r} stays"
        )
        difference = (
            f"logit({self.answers.source!r}) - logit({self.answers.base!r}): "
            f"{self.before:+.2f} -> {self.after:+.2f}"
        )
        return "; ".join([f"{self.where}: {what}", difference, *self.answers.surprises])

    __repr__ = __str__


@dataclass(frozen=True, slots=True)
class Scan:
    """The next token and logit difference for an interchange at every layer and token.

    `layers`: None for components outside of all layers; `tokens`: the base's, with the source's
    below where it differs; `next_ids`: ids of `next_tokens`; `path`: the executor that ran it.
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
        """Says whether the next token differs from the model's own prediction after the base, by
        layer and token."""
        return tuple(
            tuple(token != self.answers.predicted_ids[0] for token in tokens)
            for tokens in self.next_ids
        )

    @property
    def table(self) -> pa.Table:
        """One row for each layer and token: layer, token (index), text, next_token,
        logit_difference, changed."""
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
        """Draws layers upward, tokens across, colour = logit difference; cells show a changed next
        token."""
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
        """Formats the logit differences as a table, with a star where the next token changed."""
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
            [
                *lines,
                f"* another next token than {self.answers.predicted[0]!r}",
                *self.answers.surprises,
            ]
        )

    __repr__ = __str__
