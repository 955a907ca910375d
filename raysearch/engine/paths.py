"""The ways to run intervened rows, fastest first: replay, batched, plain. All say the same; each proves it on the model at hand.

Invariants: a path that does not hold on this model is not taken, and that is said; plain (the oracle) always holds.
"""

import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from raysearch.engine.captures import Captures
from raysearch.engine.decide import decide
from raysearch.engine.forward import batches
from raysearch.engine.interchange import Patch, Row, interchange, oracle, row_of
from raysearch.engine.replay import Replay, can_replay, shape_of
from raysearch.engine.sites import Sizes
from raysearch.search.events import Encoded
from raysearch.search.hypothesis import Intervention, Site, Unit

log = logging.getLogger(__name__)

CHECKED = 6
"""Pairs on which each path is checked."""


class Path(Protocol):
    """A way to run rows."""

    name: str

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """The rows in the companies in which they are to be run."""
        ...

    def logits(self, rows: Sequence[Row]) -> Float[Tensor, "row vocab"]:
        """The logits (float32) at the answer of rows that `batches` put together."""
        ...

    def is_free(self, row: Row) -> bool:
        """Whether the row is sure to be the base's run without intervention, so that nothing needs to be run."""
        ...


class Plain:
    """One by one, by the oracle."""

    name = "plain"

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        return ([row] for row in rows)

    def logits(self, rows: Sequence[Row]) -> Float[Tensor, "row vocab"]:
        return torch.stack([oracle(self._model, row) for row in rows])

    def is_free(self, row: Row) -> bool:
        return False


class Batched:
    """Full forward passes of up to `size` rows, padded to a width that depends on the row alone."""

    name = "batched"

    def __init__(self, model: PreTrainedModel, captures: Captures, size: int) -> None:
        self._model = model
        self._captures = captures
        self._size = size

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        return batches(rows, lambda row: len(row.base), self._size)

    def logits(self, rows: Sequence[Row]) -> Float[Tensor, "row vocab"]:
        return interchange(self._model, rows, self._captures.runs([row.source for row in rows]))

    def is_free(self, row: Row) -> bool:
        return False


class Replayed:
    """Waves of up to `size` rows that begin at one token, on what the bases' runs have left. Needs captures with keys."""

    name = "replay"

    def __init__(self, model: PreTrainedModel, captures: Captures, size: int) -> None:
        self._replay = Replay(model)
        self._captures = captures
        self._size = size

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        waves: dict[object, list[Row]] = {}
        for row in rows:
            waves.setdefault(shape_of(row), []).append(row)
        for wave in waves.values():
            wave.sort(key=lambda row: row.patches[0].layer)
            for start in range(0, len(wave), self._size):
                yield wave[start : start + self._size]

    def logits(self, rows: Sequence[Row]) -> Float[Tensor, "row vocab"]:
        runs = self._captures.runs([ids for row in rows for ids in (row.base, row.source)])
        return self._replay.logits(rows, runs)

    def is_free(self, row: Row) -> bool:
        """In a causal model a token's residual depends on the tokens up to it: the same prefix at the same place, the same swap."""
        return all(
            ours == theirs and row.base[: ours + 1] == row.source[: ours + 1]
            for patch in row.patches
            for ours, theirs in zip(patch.base_tokens, patch.source_tokens, strict=True)
        )


def fastest(
    model: PreTrainedModel, encoded: Sequence[Encoded], sizes: Sizes, size: int, max_bytes: int, tolerance: float
) -> tuple[Path, Captures]:
    """The fastest path that holds on this model, and captures that keep what it needs. Says in one line why not a faster one."""
    name, plain, rows = type(model).__name__, Plain(model), _random_rows(encoded, sizes)
    wanted = dict(zip(rows, plain.logits(rows), strict=True)) if rows else {}
    captures = Captures(model, size, tolerance, max_bytes)
    batched = Batched(model, captures, size)
    if not _holds(name, batched, wanted, tolerance, "each row is run by itself, slowly"):
        return plain, Captures(model, 1, tolerance, 0, plain=True)
    if not can_replay(model):
        log.warning("%s: takes no cache: rows are run whole, not from the patch on", name)
        return batched, captures
    keeping = Captures(model, size, tolerance, max_bytes, keys=True)
    replayed = Replayed(model, keeping, size)
    if not _holds(name, replayed, wanted, tolerance, "rows are run whole, not from the patch on"):
        return batched, captures
    return replayed, keeping


def difference(path: Path, wanted: Mapping[Row, Tensor], tolerance: float) -> tuple[float, bool]:
    """The largest |difference| of a logit from what is wanted (infinity where it is NaN), and whether all outputs are equal.

    An output that is a near-tie counts as equal: it is decided again. `wanted` has each base without intervention too.
    """
    left_alone = {row.base: logits for row, logits in wanted.items() if not row.patches}
    said = [(left_alone[row.base], logits) for row, logits in wanted.items() if row.patches and path.is_free(row)]
    for batch in path.batches([row for row in wanted if row.patches or not path.is_free(row)]):
        said += zip(path.logits(batch), [wanted[row] for row in batch], strict=True)
    worst, equal = 0.0, True
    for ours, theirs in said:
        worst = max(worst, float((ours - theirs).nan_to_num(nan=math.inf).abs().max()))
        (a,), (b,) = decide(ours[None]), decide(theirs[None])
        equal = equal and (a.id == b.id or a.gap < tolerance)
    return worst, equal


def _holds(model: str, path: Path, wanted: Mapping[Row, Tensor], tolerance: float, otherwise: str) -> bool:
    """Whether `path` gives what is wanted: outputs equal, logits to a quarter of `tolerance`. Warns if not.

    Two logits of a row may be off by a quarter each, in opposite directions, and a row whose best two are further apart
    than `tolerance` still has the same output; the others are decided again.
    """
    try:
        worst, equal = difference(path, wanted, tolerance)
        why = f"logits differ by up to {worst:.2g}" + ("" if equal else ", and so do outputs")
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as e:
        worst, equal, why = math.inf, False, f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
    if equal and worst <= tolerance / 4:
        return True
    log.warning(
        "%s: the %s path is not the same as one run at a time (%s; allowed %.2g): %s",
        model,
        path.name,
        why,
        tolerance / 4,
        otherwise,
    )
    return False


def _random_rows(encoded: Sequence[Encoded], sizes: Sizes, seed: int = 0) -> list[Row]:
    """On random pairs: a unit at a random position in two random layers, each for itself; an identity; no intervention.

    Two layers: so that rows have company that joins at another layer, and not all are patched in the last. The identity
    takes the last token but one from the same text without its last: it is none where tokens look ahead. Nothing is
    interchanged in a pair of several sources.
    """
    rng = random.Random(f"{seed}.selfcheck")
    rows = []
    for pair in (rng.choice(encoded) for _ in range(CHECKED if encoded else 0)):
        rows.append(Row(pair.base, pair.base))
        at = (len(pair.base) - 2,)
        if at[0] >= 0:
            rows.append(Row(pair.base, pair.base[:-1], (Patch(rng.randrange(sizes.layers), at, at),)))
        if len(pair.sources) == 1:
            position = rng.choice(sorted(pair.base_positions))
            for layer in rng.sample(range(sizes.layers), min(2, sizes.layers)):
                rows.append(row_of(pair, Intervention((Unit(Site(layer, "residual", position)),)), sizes))
    return list(dict.fromkeys(rows))
