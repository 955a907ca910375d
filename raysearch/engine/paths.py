"""The ways to run intervened rows, fastest first: replay, batched, plain. All say the same; each proves it on the model at hand.

Invariants: a path that does not hold on this model is not taken, and that is said; plain (the oracle) always holds.
"""

import logging
import math
import random
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.captures import Captures
from raysearch.engine.components import Taps, hook_at
from raysearch.engine.decide import decide
from raysearch.engine.edits import Lent, edits_of, sources_of
from raysearch.engine.hooks import owned_hooks
from raysearch.engine.interchange import oracle
from raysearch.engine.kinds import Add, Featurized, Interchange, Resample, Subtract
from raysearch.engine.memory import Limit
from raysearch.engine.meter import Meter
from raysearch.engine.network import LanguageModel, Network
from raysearch.engine.replay import Replay
from raysearch.engine.rows import Patch, Point, Row, Source
from raysearch.engine.scores import Scoring
from raysearch.errors import RaysearchError

log = logging.getLogger(__name__)


Name = Literal["replay", "batched", "plain"]


class Path(Protocol):
    """A way to run rows."""

    name: Name

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """The rows in the companies in which they are to be run."""
        ...

    def company(self, row: Row) -> Hashable:
        """Equal for rows that can travel in one batch."""
        ...

    def joins(self, row: Row) -> int:
        """At which layer the row begins to be run: those that begin alike are best run together."""
        ...

    def logits(self, rows: Sequence[Row], lent: Lent | None = None) -> Float[Tensor, "row answer"]:
        """The logits (float32) at the answer of rows of one company, such as `batches` puts together, or of a part of them.

        `lent`: of each row, which has one patch, what this is lent in the place of what its source has. With gradients, where
        the caller lets there be any: who wants none says so.
        """
        ...

    def is_free(self, row: Row) -> bool:
        """Whether the row is sure to be the base's run without intervention, so that nothing needs to be run."""
        ...


class Plain:
    """One by one, by the oracle."""

    name: Name = "plain"

    def __init__(self, network: Network, taps: Taps) -> None:
        self._network = network
        self._taps = taps

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        return ([row] for row in rows)

    def company(self, row: Row) -> Hashable:
        return self._network.company(row.base)

    def joins(self, row: Row) -> int:
        return 0

    def logits(self, rows: Sequence[Row], lent: Lent | None = None) -> Float[Tensor, "row answer"]:
        owns = [None] * len(rows) if lent is None else [[own] for own in lent]
        return torch.stack([oracle(self._network, self._taps, row, own) for row, own in zip(rows, owns, strict=True)])

    def is_free(self, row: Row) -> bool:
        return False


class Batched:
    """Full forward passes of rows of one company."""

    name: Name = "batched"

    def __init__(self, network: Network, taps: Taps, captures: Captures) -> None:
        self._network = network
        self._taps = taps
        self._captures = captures

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        self._captures.want(_lent(rows))
        by_company: dict[object, list[Row]] = {}
        for row in rows:
            by_company.setdefault(self._network.company(row.base), []).append(row)
        for group in by_company.values():
            yield from self._captures.fitting(group)

    def company(self, row: Row) -> Hashable:
        return self._network.company(row.base)

    def joins(self, row: Row) -> int:
        return 0

    def logits(self, rows: Sequence[Row], lent: Lent | None = None) -> Float[Tensor, "row answer"]:
        network, given = self._network, rows[0].base
        sources = sources_of(rows) if lent is None else {}
        self._captures.want(_lent(rows) if lent is None else ())
        runs = self._captures.runs(sources)
        pads = [network.pad(row.base) for row in rows]
        edits = edits_of(rows, pads, self._taps, lambda s: self._captures.at(runs[s.run], s.point), lent)
        with owned_hooks([hook_at(network, tap, edit, given) for tap, edit in edits]):
            return network.batch([row.base for row in rows])

    def is_free(self, row: Row) -> bool:
        return False


class Replayed:
    """Waves of rows that begin at one token, on what the bases' runs have left; rows that are patched outside of
    the blocks are run whole. Needs captures with keys."""

    name: Name = "replay"

    def __init__(self, network: LanguageModel, taps: Taps, captures: Captures) -> None:
        assert captures.keys, "waves travel on the keys and values of the bases' runs"
        self._replay = Replay(network, taps, captures)
        self._whole = Batched(network, taps, captures)
        self._captures = captures

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        waves: dict[object, list[Row]] = {}
        for row in rows:
            waves.setdefault(self._replay.shape_of(row), []).append(row)
        yield from self._whole.batches(waves.pop(None, []))
        for wave in waves.values():
            self._want(wave)
        for wave in waves.values():
            wave.sort(key=self._replay.joint_of)
            yield from self._captures.fitting(wave)

    def company(self, row: Row) -> Hashable:
        shape = self._replay.shape_of(row)
        return shape if shape is not None else ("whole", self._whole.company(row))

    def joins(self, row: Row) -> int:
        return 0 if self._replay.shape_of(row) is None else self._replay.joint_of(row).layer

    def logits(self, rows: Sequence[Row], lent: Lent | None = None) -> Float[Tensor, "row answer"]:
        if self._replay.shape_of(rows[0]) is None:
            return self._whole.logits(rows, lent)
        self._want(rows)
        sources = sources_of(rows) if lent is None else {}
        return self._replay.logits(rows, self._captures.runs([*(Row(row.base) for row in rows), *sources]), lent)

    def is_free(self, row: Row) -> bool:
        """In a causal model a token's activation depends on the tokens up to it: the same prefix at the same place, the same swap."""
        return bool(row.patches) and all(_is_identity(row, patch) for patch in row.patches)

    def _want(self, wave: Sequence[Row]) -> None:
        self._captures.want([*_lent(wave), *(self._replay.joint_of(row).point.component for row in wave)])


@torch.inference_mode()
def fastest(
    network: Network,
    taps: Taps,
    rows: Sequence[Row],
    limit: Limit,
    max_bytes: int,
    tolerance: float,
    meter: Meter | None = None,
    scoring: Scoring | None = None,
) -> tuple[Path, Captures]:
    """The fastest path that gives for `rows` what the oracle gives, and captures that keep what it needs; says why not a faster one.

    `rows`: as `trial_rows` makes them. `scoring`: the scores that captures read.
    """
    name, plain = network.name, Plain(network, taps)
    wanted = dict(zip(rows, plain.logits(rows), strict=True)) if rows else {}
    captures = Captures(network, taps, limit, tolerance, max_bytes, meter=meter, scoring=scoring)
    batched = Batched(network, taps, captures)
    if not _holds(name, batched, wanted, tolerance, "each row is run by itself, slowly"):
        return plain, Captures(network, taps, Limit(1), tolerance, 0, plain=True, meter=meter, scoring=scoring)
    if not isinstance(network, LanguageModel):
        return batched, captures
    if not network.can_replay:
        log.warning("%s: takes no cache: rows are run whole, not from the patch on", name)
        return batched, captures
    keeping = Captures(network, taps, limit, tolerance, max_bytes, keys=True, meter=meter, scoring=scoring)
    replayed = Replayed(network, taps, keeping)
    if not _holds(name, replayed, wanted, tolerance, "rows are run whole, not from the patch on"):
        return batched, captures
    return replayed, keeping


@torch.inference_mode()
def difference(path: Path, wanted: Mapping[Row, Tensor], tolerance: float) -> tuple[float, bool]:
    """The largest |difference| of a logit from what is wanted (infinity where it is NaN), and whether all outputs are equal.

    An output that is a near-tie counts as equal: it is decided again. `wanted` has each base without intervention too.
    """
    left_alone = {row.base: logits for row, logits in wanted.items() if not row.patches}
    said = [(left_alone[row.base], logits) for row, logits in wanted.items() if path.is_free(row)]
    for batch in path.batches([row for row in wanted if not path.is_free(row)]):
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
    except (RaysearchError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as e:
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


def trial_rows(rows: Sequence[Row], layers: int, seed: int = 0) -> list[Row]:
    """What paths are held against the oracle on: `rows`, their bases without intervention, and an identity for each base of several tokens.

    The identity takes the last token but one from the same text without its last, in a random layer: it is none where tokens look ahead.
    """
    rng = random.Random(f"{seed}.selfcheck")
    trial = list(rows)
    for given in dict.fromkeys(row.base for row in rows):
        trial.append(Row(given))
        if isinstance(given, tuple) and len(given) > 1:
            at, point = (len(given) - 2,), Point(rng.randrange(layers), "residual")
            trial.append(Row(given, (Patch(point, at, (Source(Row(given[:-1]), point, at),)),)))
    return list(dict.fromkeys(trial))


def _lent(rows: Iterable[Row]) -> set[str]:
    """The components that rows lend from, and those that their sources, where these are intervened upon, lend from in turn."""
    sources = sources_of(rows)
    own = {point.component for points in sources.values() for point in points}
    return own | _lent(sources) if sources else own


def cancels(row: Row) -> bool:
    """Whether a patch takes from an activation what is the same but for rounding, so that only rounding is left.

    A norm after it makes that large: each path then says something else, up to 2 logits apart (measured on random models).
    """
    return any(
        isinstance(p.kind, Add | Subtract) and len(p.sources) == 1 and _lends_its_own(row, p) for p in row.patches
    )


def _is_identity(row: Row, patch: Patch) -> bool:
    """Whether the patch puts in what is there: its own activation, interchanged alone."""
    if not isinstance(patch.kind, Interchange | Resample | Featurized) or len(patch.sources) != 1:
        return False
    return _lends_its_own(row, patch)


def _lends_its_own(row: Row, patch: Patch) -> bool:
    """Whether the source has the same point after the same tokens."""
    (source,) = patch.sources
    if source.run.patches or source.point != patch.point or source.features != patch.features:
        return False
    ours, theirs = row.base, source.run.base
    if not isinstance(ours, tuple) or not isinstance(theirs, tuple):
        return False
    return source.tokens == patch.tokens and ours[: max(patch.tokens) + 1] == theirs[: max(patch.tokens) + 1]
