"""Runs rows of a network on tensors as whole forward passes, swaps as arrays.

Such a network has no keys and values to go on from, and its passes cost little: what counts is that
no row costs Python.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
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


def whole_runs(
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
        self._stacked: tuple[Sequence[Row], Tensor] | None = None

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
        logits = self.swap_logits(swaps.take(order), None)
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
        network, table = self._tensors, self._cache.table(swaps.runs)
        if table is None:
            runs = self._cache.runs((), swaps.sources())
            read = self._waves.read(
                swaps, lambda used: RunTable.of([runs[swaps.runs[at]] for at in used])
            )
        else:
            read = self._waves.read(swaps, table.take)
        hooks = [
            hook_at(network, hook_point, edit, swaps.runs[0].base)
            for hook_point, edit in self._waves.edits(swaps, read)
        ]
        with owned_hooks(hooks):
            return network.logits(self._inputs(swaps, table is not None))

    def begin_swaps(
        self, swaps: Swaps, choices: Int[Tensor, "row choice"] | None
    ) -> tuple[Float[Tensor, "row class"], NextToken]:
        """A class is an answer of one token: nothing goes on."""
        raise AssertionError("a class has no further token")

    def _inputs(self, swaps: Swaps, keep: bool) -> Shaped[Tensor, "row ..."]:
        """Returns the input of each row. `keep`: those of all runs are kept for the next wave."""
        if not keep:
            used, base = swaps.distinct_bases()
            inputs = self._tensors.stack([swaps.runs[at].base for at in used])
            return inputs[on_device(base, inputs.device)]
        of_all = self._stacked
        if of_all is None or of_all[0] is not swaps.runs or len(of_all[1]) < len(swaps.runs):
            of_all = swaps.runs, self._tensors.stack([run.base for run in swaps.runs])
            self._stacked = of_all
        return of_all[1][on_device(swaps.base, of_all[1].device)]

    @property
    def _tensors(self) -> TensorNetwork:
        assert isinstance(self._network, TensorNetwork)
        return self._network
