"""The ways to run intervened rows, fastest first: replay, batched, plain. All say the same; which
holds on a model, `selfcheck` finds out.

Invariants: plain is the canonical computation, by which an answer is defined.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.canonical import KEPT, CanonicalRunner
from raysearch.engine.execution.replay import Replay
from raysearch.engine.networks.components import Components, hook_at
from raysearch.engine.networks.hooks import owned_hooks
from raysearch.engine.networks.network import LanguageModel, Network
from raysearch.engine.patching.edits import Replacements, edits_of, sources_of
from raysearch.engine.patching.operations import Featurized, Interchange
from raysearch.engine.patching.rows import Patch, Row

ExecutorName = Literal["replay", "batched", "plain"]


class Executor(Protocol):
    """A way to run rows."""

    name: ExecutorName

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """The rows in the companies in which they are to be run."""
        ...

    def company(self, row: Row) -> Hashable:
        """Equal for rows that can travel in one batch."""
        ...

    def joins(self, row: Row) -> int:
        """At which layer the row begins to be run: those that begin alike are best run together."""
        ...

    def logits(
        self, rows: Sequence[Row], lent: Replacements | None = None
    ) -> Float[Tensor, "row answer"]:
        """The logits (float32) at the answer of rows of one company, such as `batches` puts
        together, or of a part of them.

        `lent`: of each row, which has one patch, what this is lent in the place of what its source
        has. With gradients, where the caller lets there be any: who wants none says so.
        """
        ...

    def is_free(self, row: Row) -> bool:
        """Whether the row is sure to be the base's run without intervention, so that nothing needs
        to be run."""
        ...


class PlainExecutor:
    """One by one, by the canonical computation, which keeps at most `max_bytes` of what sources
    lend."""

    name: ExecutorName = "plain"

    def __init__(self, network: Network, taps: Components, max_bytes: int = KEPT) -> None:
        self._network = network
        self.canonical = CanonicalRunner(network, taps, max_bytes)

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        return ([row] for row in rows)

    def company(self, row: Row) -> Hashable:
        return self._network.company(row.base)

    def joins(self, row: Row) -> int:
        return 0

    def logits(
        self, rows: Sequence[Row], lent: Replacements | None = None
    ) -> Float[Tensor, "row answer"]:
        owns = [None] * len(rows) if lent is None else [[own] for own in lent]
        return torch.stack(
            [self.canonical.logits(row, own) for row, own in zip(rows, owns, strict=True)]
        )

    def is_free(self, row: Row) -> bool:
        return False


class BatchedExecutor:
    """Full forward passes of rows of one company."""

    name: ExecutorName = "batched"

    def __init__(self, network: Network, taps: Components, captures: ActivationCache) -> None:
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

    def logits(
        self, rows: Sequence[Row], lent: Replacements | None = None
    ) -> Float[Tensor, "row answer"]:
        network, given = self._network, rows[0].base
        sources = sources_of(rows) if lent is None else {}
        self._captures.want(_lent(rows) if lent is None else ())
        runs = self._captures.runs(sources)
        pads = [network.pad(row.base) for row in rows]
        edits = edits_of(
            rows, pads, self._taps, lambda s: self._captures.at(runs[s.run], s.point), lent
        )
        with owned_hooks([hook_at(network, tap, edit, given) for tap, edit in edits]):
            return network.batch([row.base for row in rows])

    def is_free(self, row: Row) -> bool:
        return False


class ReplayExecutor:
    """Waves of rows that begin at one token, on what the bases' runs have left; rows that are
    patched outside of the blocks are run whole. Needs captures with keys."""

    name: ExecutorName = "replay"

    def __init__(self, network: LanguageModel, taps: Components, captures: ActivationCache) -> None:
        assert captures.keys, "waves travel on the keys and values of the bases' runs"
        self._network = network
        self._replay = Replay(network, taps, captures)
        self._whole = BatchedExecutor(network, taps, captures)
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

    def logits(
        self, rows: Sequence[Row], lent: Replacements | None = None
    ) -> Float[Tensor, "row answer"]:
        if self._replay.shape_of(rows[0]) is None:
            return self._whole.logits(rows, lent)
        self._want(rows)
        sources = sources_of(rows) if lent is None else {}
        return self._replay.logits(
            rows, self._captures.runs([*(Row(row.base) for row in rows), *sources]), lent
        )

    def is_free(self, row: Row) -> bool:
        """In a causal model a token's activation depends on the tokens up to it: the same prefix at
        the same place, the same swap."""
        return bool(row.patches) and all(
            is_identity(row, patch) and self._network.alike(row.base, patch.sources[0].run.base)
            for patch in row.patches
        )

    def _want(self, wave: Sequence[Row]) -> None:
        self._captures.want(
            [*_lent(wave), *(self._replay.joint_of(row).point.component for row in wave)]
        )


def _lent(rows: Iterable[Row]) -> set[str]:
    """The components that rows lend from, and those that their sources, where these are intervened
    upon, lend from in turn."""
    sources = sources_of(rows)
    own = {point.component for points in sources.values() for point in points}
    return own | _lent(sources) if sources else own


def is_identity(row: Row, patch: Patch) -> bool:
    """Whether the patch puts in what is there: its own activation, interchanged alone, from the
    same point after the same tokens."""
    if not isinstance(patch.kind, Interchange | Featurized) or len(patch.sources) != 1:
        return False
    (source,) = patch.sources
    if source.run.patches or source.point != patch.point or source.features != patch.features:
        return False
    ours, theirs = row.base, source.run.base
    if not isinstance(ours, tuple) or not isinstance(theirs, tuple):
        return False
    return (
        source.tokens == patch.tokens
        and ours[: max(patch.tokens) + 1] == theirs[: max(patch.tokens) + 1]
    )
