"""Estimates the memory of a search by formulas, in bytes: of a replica, of a block, of the driver.

Invariants: nothing is run and nothing is measured here but the constants, each with where its
figure is from; what a formula leaves out is said in its words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from raysearch.core.events import Encoded, Ids, ModelInput
from raysearch.core.runner_settings import MOST_ON_CPU
from raysearch.engine.execution.read_spans import ReadSpan, ReadSpans
from raysearch.engine.loading.model_summary import ModelSummary
from raysearch.search.pair_blocks import cut_at_looks

MIB = 2**20
LIBRARIES = 432 * MIB
"""Bytes of a process that has imported what a replica needs and no model (psutil's rss, torch 2.13,
transformers 5.23)."""
DRIVER = 200 * MIB
A_HYPOTHESIS = 2_241
"""Bytes of the driver; both measured (benchmarks/RESULTS.md, "How far one driver reaches")."""
COPIES = 2
"""Copies of what a forward pass keeps, at its peak: as it was seen, and stacked
(engine/execution/activation_cache.py)."""
INSIDE = 4
"""Copies of the widest vector of a block for each token of a batch: gate, up, their product, and
the output."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes. `weights`: with `copies` of them in float32, which products of halves on a CPU go by
    where there is room; `run`: what is kept of the longest input (activations, keys, values);
    `block`: of all inputs of the largest block of evidence; `inputs`: of all distinct inputs;
    `kept`: how much of that at most; `batch`: of a full forward pass, besides; `replica`: all of
    one; `driver`: of the search itself. `inputs_of_block`: how many inputs that block has.
    """

    weights: int
    run: int
    block: int
    inputs_of_block: int
    inputs: int
    kept: int
    batch: int
    replica: int
    driver: int
    copies: int = 0


def estimate_memory(
    summary: ModelSummary,
    encoded: Sequence[Encoded],
    test: Sequence[int],
    rows: int,
    memory: float | None,
    models: int,
    hypotheses: int,
    on_cpu: bool = True,
    positions: Sequence[str] = (),
    layers: Sequence[int] | None = None,
) -> MemoryEstimate:
    """Estimates the memory of a job. `test`: the indices of the test pairs that blocks are cut of;
    `memory`: GiB for what is kept, None as there is room; `positions`, `layers`: that are read and
    written (none, None: any).

    `models`: how many a replica holds (two with the control random_model); `on_cpu`: whether it may
    run on a CPU. Training's memory, on a GPU its driver's, are not in it.
    """
    per_token = (_numbers_kept(summary, layers) + summary.keys) * summary.item_bytes
    spans = ReadSpans(encoded if positions else (), positions)
    sizes = {
        given: _kept(summary, given, spans.of(given), layers)
        if isinstance(given, tuple)
        else per_token * e.tokens
        for e in encoded
        for given in _inputs(e)
    }
    largest, every = _largest_block(encoded, test), sum(sizes.values())
    budget = MOST_ON_CPU if memory is None else int(memory * 2**30)
    copies = models * summary.copied_bytes if on_cpu else 0
    kept, weights = min(every, budget), models * summary.weight_bytes + copies
    batch = rows * _bytes_of_row(summary, per_token, max(e.tokens for e in encoded))
    return MemoryEstimate(
        weights=weights,
        run=max(sizes.values()),
        block=sum(sizes[g] for g in largest),
        inputs_of_block=len(largest),
        inputs=every,
        kept=kept,
        batch=batch,
        replica=LIBRARIES + weights + kept + batch,
        driver=DRIVER + A_HYPOTHESIS * hypotheses,
        copies=copies,
    )


def _largest_block(encoded: Sequence[Encoded], test: Sequence[int]) -> set[ModelInput]:
    """Returns the inputs of the block of test pairs that has most of them."""
    pairs = {e.index: e for e in encoded}
    blocks = [{g for i in block.pairs for g in _inputs(pairs[i])} for block in cut_at_looks(test)]
    return max(blocks, key=len, default=set())


def _bytes_of_row(summary: ModelSummary, per_token: int, tokens: int) -> int:
    """Returns the bytes of a row of so many tokens in a full forward pass. `per_token`: what is
    kept of each."""
    return (
        COPIES * per_token * tokens
        + INSIDE * summary.widest * tokens * summary.item_bytes
        + summary.logits * (summary.item_bytes + 4)  # and again in float32
    )


def _numbers_kept(summary: ModelSummary, layers: Sequence[int] | None) -> int:
    """Returns how many numbers are cached for each token that is read: the searched components in
    the layers that are read, and with replay the inputs of these blocks, where rows begin."""

    def is_read(layer: int | None) -> bool:
        return layers is None or layer in layers

    components = summary.components
    numbers = sum(c.width_in(at) for c in components for at in c.layers if is_read(at))
    if summary.path == "replay" and any(c.name != "residual" for c in components):
        numbers += sum(map(is_read, range(summary.layers))) * summary.width
    return numbers


def _kept(summary: ModelSummary, given: Ids, span: ReadSpan, layers: Sequence[int] | None) -> int:
    """Returns the bytes that are kept of an input: its tokens that are read, and with replay the
    keys and values of earlier ones, from the first layer that is read."""
    numbers = _numbers_kept(summary, layers)
    if summary.path != "replay":
        return numbers * summary.item_bytes * len(given)
    above = summary.layers - min(layers or (0,))
    keys = span.keys * summary.keys * above // max(summary.layers, 1)
    return (numbers * (span.stop - span.first) + keys) * summary.item_bytes


def _inputs(pair: Encoded) -> tuple[ModelInput, ...]:
    return (pair.base, *pair.sources.values())
