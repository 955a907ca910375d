"""Runs rows of a network on tensors as whole forward passes, swaps as arrays.

Such a network has no keys and values to go on from, and its passes cost little: what counts is that
no row costs Python.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.cached_runs import Indices, RunTable, on_device
from raysearch.engine.execution.executors import BatchedExecutor, NextToken
from raysearch.engine.execution.wave import Waves
from raysearch.engine.execution.wave_executor import parts_of_runs
from raysearch.engine.networks.components import Components, hook_at
from raysearch.engine.networks.hooks import owned_hooks
from raysearch.engine.networks.network import Network
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.patching.build_swaps import place_of, swaps_of
from raysearch.engine.patching.edits import Replacements
from raysearch.engine.patching.rows import Row
from raysearch.engine.patching.swaps import Swaps


class SourceTable:
    """Finds the stored runs of sources by their numbers. Each is looked up once, as long as no run
    is dropped and nothing else is wanted."""

    def __init__(self, cache: ActivationCache) -> None:
        self._cache = cache
        self._runs: Sequence[Row] = ()
        self._state = cache.state
        self._place: Indices = np.zeros(0, dtype=np.int64)  # in the table, from 1; 0: not known
        self._table: RunTable | None = None

    def table(self, swaps: Swaps, used: Indices) -> RunTable:
        """Returns the runs of these numbers, sources of `swaps`; those that are not known yet are
        looked up, or made."""
        if self._runs is not swaps.runs or self._state != self._cache.state:
            self._runs, self._state, self._table = swaps.runs, self._cache.state, None
            self._place = np.zeros(0, dtype=np.int64)
        grown = np.zeros(len(swaps.runs) - len(self._place), dtype=np.int64)
        self._place = np.concatenate((self._place, grown))
        missing = used[self._place[used] == 0]
        if len(missing):
            found = self._found(swaps, missing)
            if self._state != self._cache.state:  # some that were known may be gone
                return self._found(swaps, used)
            known = 0 if self._table is None else len(self._table)
            self._place[missing] = np.arange(known, known + len(missing)) + 1
            self._table = found if self._table is None else self._table.extended(found)
        assert self._table is not None
        return self._table.take(self._place[used] - 1)

    def _found(self, swaps: Swaps, numbers: Indices) -> RunTable:
        points, rows = swaps.sources(), [swaps.runs[at] for at in numbers]
        runs = self._cache.runs((), {row: points[row] for row in rows})
        return RunTable.of([runs[row] for row in rows])


def whole_run_executor(
    network: Network, hook_points: Components, cache: ActivationCache
) -> BatchedExecutor:
    """Returns what runs rows of a network as whole forward passes."""
    if isinstance(network, TensorNetwork):
        return TensorExecutor(network, hook_points, cache)
    return BatchedExecutor(network, hook_points, cache)


class TensorExecutor(BatchedExecutor):
    """Runs whole forward passes of rows of one batch key; of swaps without an object for each."""

    def __init__(
        self, network: TensorNetwork, hook_points: Components, cache: ActivationCache
    ) -> None:
        super().__init__(network, hook_points, cache)
        self._waves = Waves(hook_points)
        self._sources = SourceTable(cache)

    def logits(
        self,
        rows: Sequence[Row],
        replacements: Replacements | None = None,
        choices_only: bool = False,
    ) -> Float[Tensor, "row answer"]:
        if replacements is not None or any(place_of(row) is None for row in rows):
            return super().logits(rows, replacements, choices_only)
        swaps = swaps_of(rows)
        if len({self._network.batch_key(run.base) for run in swaps.runs}) > 1:
            return super().logits(rows, choices_only=choices_only)
        self._cache.wanted.rows(rows)
        order = np.argsort(swaps.place, kind="stable")
        logits = self._run(swaps.take(order), SourceTable(self._cache))
        return logits[on_device(np.argsort(order), logits.device)]

    def swap_waves(self, swaps: Swaps) -> Iterator[Indices]:
        """Yields the indices of swaps of one batch key, in the passes in which they are to be run.

        Rows whose runs fit into the cache together are run one pass after the other.
        """
        self._cache.wanted.points(self._waves.source_points(swaps))
        for rows in parts_of_runs(swaps.all_runs(), self._cache.room):
            order = rows[np.argsort(swaps.place[rows], kind="stable")]
            first = 0
            while first < len(order):
                most = self._cache.most_rows(1)
                yield order[first : first + most]
                first += most

    def swap_logits(
        self, swaps: Swaps, choices: Int[Tensor, "row choice"] | None
    ) -> Float[Tensor, "row class"]:
        """Computes the logits (float32) of swaps in the order of their places, or of a part of
        them; all runs have one batch key. What they read is wanted since `swap_waves`."""
        return self._run(swaps, self._sources)

    def _run(self, swaps: Swaps, sources: SourceTable) -> Float[Tensor, "row class"]:
        read = self._waves.read(swaps, partial(sources.table, swaps))
        hooks = [
            hook_at(self._network, hook_point, edit, swaps.runs[0].base)
            for hook_point, edit in self._waves.edits(swaps, read)
        ]
        used, base = swaps.distinct_bases()
        inputs = self._tensors.stack([swaps.runs[at].base for at in used])
        with owned_hooks(hooks):
            return self._tensors.logits(inputs[on_device(base, inputs.device)])

    def begin_swaps(
        self, swaps: Swaps, choices: Int[Tensor, "row choice"] | None
    ) -> tuple[Float[Tensor, "row class"], NextToken]:
        """A class is an answer of one token: nothing goes on."""
        raise AssertionError("a class has no further token")

    @property
    def _tensors(self) -> TensorNetwork:
        assert isinstance(self._network, TensorNetwork)
        return self._network
