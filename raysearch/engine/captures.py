"""What the model does with each distinct input when left alone: its decision, and the residuals of all layers.

Invariants: a distinct input (by its ids) is run once as long as its residuals stay in the cache; decisions are kept for
good, so that what screening saw is never computed a second time; the cache never holds more than its bytes.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from raysearch.engine.decide import Decision, decide, near_ties
from raysearch.engine.forward import batch_logits, batches, plain_logits, width_of
from raysearch.engine.hooks import owned_hooks
from raysearch.engine.sites import layers_of
from raysearch.search.events import Ids

Residual = Float[Tensor, "layer token d_model"]


class Captures:
    """The runs of a model without intervention, at most `rows` inputs a forward pass, `max_bytes` of residuals kept.

    `tolerance` (logits): a decision closer than this is taken again at batch one. With `plain`, all are taken there.
    """

    def __init__(
        self, model: PreTrainedModel, rows: int, tolerance: float, max_bytes: int, plain: bool = False
    ) -> None:
        self._model = model
        self._layers = layers_of(model)
        self._rows = rows
        self._tolerance = tolerance
        self._max_bytes = max_bytes
        self._plain = plain
        self._bytes = 0
        self._residuals: OrderedDict[Ids, Tensor] = OrderedDict()  # least recently used first
        self._decisions: dict[Ids, Decision] = {}

    @torch.inference_mode()
    def decisions(self, inputs: Sequence[Ids]) -> list[Decision]:
        """The decision for each of `inputs`; those not seen before are run."""
        unseen = [i for i in dict.fromkeys(inputs) if i not in self._decisions]
        if self._plain:
            for ids in unseen:
                self._decisions[ids] = self._decide_plainly(ids)
        else:
            for batch in batches(unseen, len, self._rows):
                self._run(batch)
        return [self._decisions[i] for i in inputs]

    @torch.inference_mode()
    def residuals(self, inputs: Sequence[Ids]) -> dict[Ids, Residual]:
        """The residuals of each of `inputs`, unpadded; those not in the cache are run (again)."""
        found: dict[Ids, Tensor] = {}
        for ids in dict.fromkeys(inputs):
            if ids in self._residuals:
                self._residuals.move_to_end(ids)
                found[ids] = self._residuals[ids]
        missing = [i for i in dict.fromkeys(inputs) if i not in found]
        for batch in batches(missing, len, self._rows):
            found.update(self._run(batch))
        return found

    def _run(self, batch: Sequence[Ids]) -> dict[Ids, Tensor]:
        """Runs `batch`, of one padded width, and keeps what it saw."""
        seen: list[Tensor] = []

        def read(hidden: Tensor) -> None:
            seen.append(hidden)

        with owned_hooks([(layer, read) for layer in self._layers]):
            logits = batch_logits(self._model, batch)
        decisions = decide(logits)
        again = set(near_ties(decisions, self._tolerance))
        for at, ids in enumerate(batch):
            if ids not in self._decisions:
                self._decisions[ids] = self._decide_plainly(ids) if at in again else decisions[at]
        pads = [width_of(len(ids)) - len(ids) for ids in batch]
        # Stacking copies, so that the batch's own memory is let go.
        residuals = {ids: torch.stack([h[at, pads[at] :] for h in seen]) for at, ids in enumerate(batch)}
        for ids, residual in residuals.items():
            self._keep(ids, residual)
        return residuals

    def _decide_plainly(self, ids: Ids) -> Decision:
        return decide(plain_logits(self._model, ids)[None])[0]

    def _keep(self, ids: Ids, residual: Tensor) -> None:
        old = self._residuals.pop(ids, None)
        self._bytes += residual.nbytes - (old.nbytes if old is not None else 0)
        self._residuals[ids] = residual
        while self._bytes > self._max_bytes:
            _, oldest = self._residuals.popitem(last=False)
            self._bytes -= oldest.nbytes
