"""The most probable next tokens of a model: as text, as a table of a notebook, as Arrow and pandas.

Invariants: probabilities are of all answers, not of those that are shown; every value is escaped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from raysearch.errors import JobError
from raysearch.notebook.data_frames import frame
from raysearch.notebook.summary import html
from raysearch.visible_text import visible

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

_COLUMNS = ("rank", "answer", "id", "probability", "logit")


@dataclass(frozen=True, slots=True)
class NextTokens:
    """The answers that a model finds most likely, best first: tokens of a language model, classes
    of a network on tensors.

    `given`: the text, or the shape of the tensor. `answers` as text, `ids` of tokens or classes;
    `probabilities` in [0, 1].
    """

    given: str
    answers: tuple[str, ...]
    ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    logits: tuple[float, ...]

    @property
    def table(self) -> pa.Table:
        """A row for each: rank (from 1), answer, id, probability, logit."""
        ranks = range(1, len(self.ids) + 1)
        columns = (list(ranks), self.answers, self.ids, self.probabilities, self.logits)
        return pa.table(dict(zip(_COLUMNS, map(list, columns), strict=True)))

    def to_arrow(self) -> pa.Table:
        """Returns the same rows as `table`, in Arrow."""
        return self.table

    def to_pandas(self) -> "DataFrame":
        """Returns the same rows as a pandas frame."""
        return frame(self.table)

    def _repr_html_(self) -> str:
        head = "".join(html("th", column) for column in _COLUMNS)
        rows = [
            html("tr", "".join(html("td", cell) for cell in row), raw=True) for row in self._rows()
        ]
        whole = html("thead", html("tr", head, raw=True), raw=True) + html(
            "tbody", "".join(rows), raw=True
        )
        return html("div", html("p", self.given) + html("table", whole, raw=True), raw=True)

    def __str__(self) -> str:
        rows = [_COLUMNS, *self._rows()]
        wide = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
        lines = [
            "  ".join(cell.rjust(w) for cell, w in zip(row, wide, strict=True)) for row in rows
        ]
        return "\n".join([visible(self.given), *lines])

    __repr__ = __str__

    def _rows(self) -> list[tuple[str, ...]]:
        columns = zip(self.answers, self.ids, self.probabilities, self.logits, strict=True)
        return [
            (str(i), repr(a), str(n), f"{p:.4f}", f"{x:+.2f}")
            for i, (a, n, p, x) in enumerate(columns, 1)
        ]


def make_prediction(
    given: str, logits: "Tensor", top: int, word: Callable[[int], str]
) -> NextTokens:
    """Returns the best `top` of `logits`, of shape (answer). Raises: JobError for a `top` that is
    no number from 1 to as many as there are."""
    if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= len(logits):
        raise JobError(
            f"predict: top: got {top!r:.60}; give a whole number from 1 to {len(logits)}, as many "
            f"answers as there are"
        )
    best = logits.double().topk(top)
    ids = tuple(map(int, best.indices))
    chances = logits.double().softmax(-1)[best.indices]
    return NextTokens(
        given,
        tuple(map(word, ids)),
        ids,
        tuple(map(float, chances)),
        tuple(map(float, best.values)),
    )
