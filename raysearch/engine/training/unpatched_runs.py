"""Outcomes of bases without intervention: those of rows that need not be run.

Invariants: each is computed once; near-ties are not decided again, since nothing is compared.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.core.option_names import Loss
from raysearch.engine.execution.losses import losses_of
from raysearch.engine.execution.memory import RowLimit, run_in_halves
from raysearch.engine.execution.predict import predictions_among
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.networks.network import Network, batches, tokens_of
from raysearch.engine.networks.to_device import on_device
from raysearch.engine.patching.rows import Row

Wanted = tuple[Row, int, int]
"""A row without patches; the wanted id and the base's own, as in `losses_of`."""


class UnpatchedRuns:
    """Runs bases, at most `limit.rows` at once."""

    def __init__(self, network: Network, loss: Loss, limit: RowLimit, meter: UsageMeter) -> None:
        self._network = network
        self._loss: Loss = loss
        self._limit = limit
        self._meter = meter
        self._found: dict[Wanted, tuple[float, int]] = {}

    def outcomes(self, wanted: Iterable[Wanted]) -> list[tuple[float, int]]:
        """Returns loss and id with the highest logit of each."""
        wanted = list(wanted)
        by_row: dict[Row, list[Wanted]] = {}
        for one in dict.fromkeys(wanted):
            if one not in self._found:
                by_row.setdefault(one[0], []).append(one)
        for batch in batches(
            list(by_row), lambda row: self._network.batch_key(row.base), self._limit.rows
        ):
            for part in run_in_halves(
                batch, lambda rows: list(zip(rows, self._logits(rows), strict=True)), self._limit
            ):
                self._add([(by_row[row], logits) for row, logits in part])
        return [self._found[one] for one in wanted]

    @torch.inference_mode()
    def _logits(self, rows: Sequence[Row]) -> Float[Tensor, "row answer"]:
        self._meter.ran(sum(tokens_of(row.base) for row in rows))
        return self._network.batch([row.base for row in rows])

    def _add(self, rows: Sequence[tuple[Sequence[Wanted], Float[Tensor, "answer"]]]) -> None:
        """Adds the outcomes of rows, with what is wanted of each; waits for the device twice."""
        losses, outputs = [], []
        for wanted, logits in rows:
            lines = logits.expand(len(wanted), -1)
            ids = on_device(torch.tensor([ids for _, *ids in wanted]), logits.device)
            losses.append(losses_of(self._loss, lines, ids[:, 0], ids[:, 1]))
            outputs.append(predictions_among(lines, [row.among for row, *_ in wanted]).ids)
        every = (one for wanted, _ in rows for one in wanted)
        found = (torch.cat(of).tolist() for of in (losses, outputs))
        self._found |= zip(every, zip(*found, strict=True), strict=True)
