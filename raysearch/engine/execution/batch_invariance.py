"""Batch invariance: whether an executor gives a row the same bits in every batch.

If it does, the executor's own computation, at the row's own shape, defines the answer in half
precision, and no near-tie has to be decided again. Kernels have the property or not, by device,
dtype and version; so each replica tries it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import Executor
from raysearch.engine.execution.wave import WaveShape
from raysearch.engine.networks.network import tokens_of
from raysearch.engine.patching.rows import Row
from raysearch.errors import is_out_of_memory

ALONE = 4
"""Number of rows that are also run each in a batch of its own."""
COPIES = 64
"""Most copies of one row in a batch; kernels may sum in another order for many rows of a base."""
TOKENS = 4096
"""Most tokens that a batch of copies computes, but for two copies."""

MakeExecutor = Callable[[ActivationCache], Executor]


@torch.inference_mode()
def is_batch_invariant(
    make: MakeExecutor, empty_cache: Callable[[], ActivationCache], rows: Sequence[Row]
) -> bool:
    """Returns whether each of `rows` has the same bits in a batch of all, in one of every second
    row in reverse order, and alone; and two of the longest base alone and among many copies.

    `empty_cache`: makes the cache for `make`, new for each batch, so that the runs of bases and
    sources are in other batches too.
    """

    def outputs(part: Sequence[Row]) -> dict[Row, Tensor]:
        cache = empty_cache()
        return _outputs(make(cache), cache, part)

    if not _is_like_its_copies(make, empty_cache, rows):
        return False
    whole = outputs(rows)
    step = max(1, -(-len(rows) // ALONE))
    parts = [rows[::-2], *([row] for row in rows[::step])]
    return all(
        torch.equal(output, whole[row])
        for part in parts
        if part
        for row, output in outputs(part).items()
    )


def _is_like_its_copies(
    make: MakeExecutor, empty_cache: Callable[[], ActivationCache], rows: Sequence[Row]
) -> bool:
    """Returns whether a row has the same bits alone and in a batch of its copies, as many as a
    batch holds: of the longest base the row with the fewest tokens to compute, and that with the
    most."""
    cache = empty_cache()
    executor = make(cache)

    def computed(row: Row) -> int:
        shape = executor.batch_key(row)
        if isinstance(shape, WaveShape):
            return shape.length - shape.start
        return tokens_of(row.base)

    patched = [row for row in rows if row.patches and not executor.is_free(row)]
    longest = max((tokens_of(row.base) for row in patched), default=0)
    tried = [row for row in patched if tokens_of(row.base) == longest]
    for row in {min(tried, key=computed), max(tried, key=computed)} if tried else ():
        tokens = computed(row)
        copies = min(COPIES, cache.most_rows(tokens), max(2, TOKENS // tokens))
        if copies == 1:  # no batch has more than one row
            continue
        try:
            alone, among = executor.logits([row]), executor.logits([row] * copies)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        if not torch.equal(among, alone.expand_as(among)):
            return False
    return True


def _outputs(executor: Executor, cache: ActivationCache, rows: Sequence[Row]) -> dict[Row, Tensor]:
    """Returns the logits of patched rows, and the best id and its gap of the others."""
    own = [row for row in rows if not row.patches]
    patched = [row for row in rows if row.patches and not executor.is_free(row)]
    predictions = zip(own, cache.predictions(own), strict=True)
    outputs = {row: torch.tensor((float(p.id), p.gap)) for row, p in predictions}
    for batch in executor.batches(patched):
        outputs |= zip(
            batch, executor.logits(batch, choices_only=not cache.scoring.names), strict=True
        )
    return outputs
