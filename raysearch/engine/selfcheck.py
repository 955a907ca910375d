"""A fast path proves itself: some random interchanges, batched, against the oracle, on the replica's own model.

Invariants: the same model, pairs and seed check the same interchanges; a check that cannot be made is not passed.
"""

import logging
import math
import random
from collections.abc import Sequence

from transformers import PreTrainedModel

from raysearch.engine.captures import Captures
from raysearch.engine.decide import decide
from raysearch.engine.forward import batches
from raysearch.engine.interchange import Row, interchange, oracle, row_of
from raysearch.engine.sites import Sizes
from raysearch.search.events import Encoded
from raysearch.search.hypothesis import Intervention, Site, Unit

log = logging.getLogger(__name__)

ITEMS = 8
"""Interchanges that are checked, and as many runs without intervention."""


def holds(
    model: PreTrainedModel, captures: Captures, encoded: Sequence[Encoded], sizes: Sizes, tolerance: float
) -> bool:
    """Whether batched rows equal the oracle: outputs the same, logits to a quarter of `tolerance`. Warns if not.

    Two logits of a row may be off by a quarter each, in opposite directions, and a row whose best two are further apart
    than `tolerance` still has the same output; the others are decided again.
    """
    try:
        worst, equal = difference(model, captures, encoded, sizes)
        why = f"logits differ by up to {worst:.2g}" + ("" if equal else ", and so do outputs")
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as e:  # it does not take rows padded to a width
        worst, equal, why = math.inf, False, f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
    if equal and worst <= tolerance / 4:
        return True
    log.warning(
        "%s: batched rows are not the same as one at a time (%s; allowed %.2g): each row is run by itself, slowly",
        type(model).__name__,
        why,
        tolerance / 4,
    )
    return False


def difference(
    model: PreTrainedModel, captures: Captures, encoded: Sequence[Encoded], sizes: Sizes, seed: int = 0
) -> tuple[float, bool]:
    """The largest |difference| of a logit between batched rows and the oracle; and whether all outputs are equal.

    (0.0, True) where there is no pair to check with; infinity where logits are not numbers.
    """
    rng = random.Random(f"{seed}.selfcheck")
    rows = [_random_row(rng.choice(encoded), sizes, rng) for _ in range(ITEMS)] if encoded else []
    rows += [Row(row.base, row.source) for row in rows]
    worst, equal = 0.0, True
    # Together, and widths mixed as they come, so that rows have company and padding as in earnest.
    for batch in batches(rows, lambda row: len(row.base), len(rows)):
        residuals = captures.residuals([row.source for row in batch])
        logits = interchange(model, batch, residuals)
        for row, ours in zip(batch, logits, strict=True):
            reference = oracle(model, row)
            off = float((ours - reference).nan_to_num(nan=math.inf).abs().max())
            worst = max(worst, off)
            equal = equal and decide(ours[None])[0].id == decide(reference[None])[0].id
    return worst, equal


def _random_row(pair: Encoded, sizes: Sizes, rng: random.Random) -> Row:
    """One unit at a random layer and position; nothing is interchanged in a pair of several sources."""
    if len(pair.sources) != 1:
        return Row(pair.base, pair.base)
    site = Site(rng.randrange(sizes.layers), "residual", rng.choice(sorted(pair.base_positions)))
    return row_of(pair, Intervention((Unit(site),)), sizes)
