"""What the model does with each distinct input when left alone: its decision, and its run (residuals, keys, values).

Invariants: a distinct input (by its ids) is run once as long as its run stays in the cache; decisions are kept for
good, so that what screening saw is never computed a second time; the cache never holds more than its bytes.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from raysearch.engine.decide import Decision, decide, near_ties
from raysearch.engine.forward import batch_logits, batches, plain_logits, width_of
from raysearch.engine.hooks import owned_hooks
from raysearch.engine.sites import layers_of
from raysearch.search.events import Ids


@dataclass(frozen=True, slots=True)
class Run:
    """What one input left behind, run without intervention, unpadded. Keys and values are None where they are not kept."""

    residuals: Float[Tensor, "layer token d_model"]
    keys: Float[Tensor, "layer head token d_head"] | None = None
    values: Float[Tensor, "layer head token d_head"] | None = None

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.residuals, self.keys, self.values) if t is not None)


class Captures:
    """The runs of a model without intervention, at most `rows` inputs a forward pass, `max_bytes` of them kept.

    `tolerance` (logits): a decision closer than this is taken again at batch one. With `plain`, all are taken there.
    `keys`: keep keys and values too, for `replay`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: int,
        tolerance: float,
        max_bytes: int,
        plain: bool = False,
        keys: bool = False,
    ) -> None:
        self._model = model
        self._layers = layers_of(model)
        self._rows = rows
        self._tolerance = tolerance
        self._max_bytes = max_bytes
        self._plain = plain
        self.keys = keys
        self._bytes = 0
        self._runs: OrderedDict[Ids, Run] = OrderedDict()  # least recently used first
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
    def runs(self, inputs: Sequence[Ids]) -> dict[Ids, Run]:
        """The run of each of `inputs`; those not in the cache are run (again)."""
        found: dict[Ids, Run] = {}
        for ids in dict.fromkeys(inputs):
            if ids in self._runs:
                self._runs.move_to_end(ids)
                found[ids] = self._runs[ids]
        missing = [i for i in dict.fromkeys(inputs) if i not in found]
        for batch in batches(missing, len, self._rows):
            found.update(self._run(batch))
        return found

    def _run(self, batch: Sequence[Ids]) -> dict[Ids, Run]:
        """Runs `batch`, of one padded width, and keeps what it saw."""
        seen: list[Tensor] = []

        def read(hidden: Tensor) -> None:
            seen.append(hidden)

        cache = DynamicCache() if self.keys else None
        with owned_hooks([(layer, read) for layer in self._layers]):
            logits = batch_logits(self._model, batch, cache)
        decisions = decide(logits)
        again = set(near_ties(decisions, self._tolerance))
        for at, ids in enumerate(batch):
            if ids not in self._decisions:
                self._decisions[ids] = self._decide_plainly(ids) if at in again else decisions[at]
        runs = {ids: _unpadded(at, width_of(len(ids)) - len(ids), seen, cache) for at, ids in enumerate(batch)}
        for ids, run in runs.items():
            self._keep(ids, run)
        return runs

    def _decide_plainly(self, ids: Ids) -> Decision:
        return decide(plain_logits(self._model, ids)[None])[0]

    def _keep(self, ids: Ids, run: Run) -> None:
        old = self._runs.pop(ids, None)
        self._bytes += run.nbytes - (old.nbytes if old is not None else 0)
        self._runs[ids] = run
        while self._bytes > self._max_bytes:
            _, oldest = self._runs.popitem(last=False)
            self._bytes -= oldest.nbytes


def _unpadded(at: int, pad: int, seen: Sequence[Tensor], cache: DynamicCache | None) -> Run:
    """Row `at` of a batch. Stacking copies, so that the batch's own memory is let go."""
    residuals = torch.stack([hidden[at, pad:] for hidden in seen])
    kept = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers] if cache else []
    keys = [k[at, :, pad:] for k, _ in kept if k is not None]
    values = [v[at, :, pad:] for _, v in kept if v is not None]
    if not keys or len(keys) < len(seen) or len(values) < len(seen):
        return Run(residuals)  # layers without attention of their own: there is nothing to replay on
    return Run(residuals, torch.stack(keys), torch.stack(values))
