"""Trains featurizers, many at once: their rows share batches, whatever their layers, sizes, seeds
and variables.

The loss of a fit in a step is the mean over its own batch of pairs plus its featurizer's penalty. A
row whose source and base agree up to the unit (`Executor.is_free`) is not run: its outcome is the
base's own run, which counts in the mean and has no gradient.

Invariants: fits do not influence each other (beyond float rounding; equal batches give equal
bytes); the model and captured activations are constant; a failing fit affects no other; gradients
agree with plain autograd on this model, or are taken by it (`gradient_check`).
"""

import math
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from operator import is_

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from raysearch.core.events import Encoded, Ids
from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import Intervention
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import Executor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.featurizers.featurizer import Featurizer
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import Network
from raysearch.engine.patching.rows import Indices, Row
from raysearch.engine.training.answer_table import NONE, AnswerTable, RowTable
from raysearch.engine.training.batches import split_pairs
from raysearch.engine.training.captured_unit import CapturedUnit, capture_unit, inputs_of, unit_of
from raysearch.engine.training.checkpoint import Checkpoint, Validation
from raysearch.engine.training.fit_request import FitFault, FitOutcome, FitRequest, Targets
from raysearch.engine.training.fit_state import FitGroup, FitState
from raysearch.engine.training.gradient_check import GradientCheck
from raysearch.engine.training.initialise import initialise
from raysearch.engine.training.step_rows import Schedule
from raysearch.engine.training.stretch import TrainingStretch
from raysearch.engine.training.training_rows import Outcomes, RowRunner, dtype_of
from raysearch.engine.training.unit_vectors import UnitVectors, by_width
from raysearch.engine.training.unpatched_runs import UnpatchedRuns
from raysearch.errors import JobError

KEPT_BYTES = 2**28
"""Most bytes of captured units that are kept for later calls."""


class Trainer:
    """Trains on one network by `executor` and `cache`, at most `rows.rows` rows in a forward and
    backward pass.

    `tolerance` (logits): in validation, outputs with a smaller gap are decided by the oracle.
    """

    def __init__(
        self,
        network: Network,
        hook_points: Components,
        executor: Executor,
        cache: ActivationCache,
        recipe: FitKeys,
        tolerance: float,
        rows: RowLimit,
    ) -> None:
        self._network = network
        self._hook_points = hook_points
        self._executor = executor
        self._cache = cache
        self._recipe = recipe
        self._tolerance = tolerance
        self._limit = rows
        self._unpatched = UnpatchedRuns(network, recipe.loss, rows, cache.meter)
        self._known: OrderedDict[Hashable, tuple[Sequence[Encoded], CapturedUnit]] = OrderedDict()
        self._runner: RowRunner | None = None
        self._check = GradientCheck(network.name, executor.name, dtype_of(network))

    def fit(
        self,
        requests: Sequence[FitRequest],
        pairs: Sequence[Encoded],
        targets: Targets,
        first: int,
        last: int,
    ) -> list[FitOutcome | FitFault]:
        """Trains each request from step `first` to step `last` (of `recipe.steps`), or until it
        stops early."""
        assert 0 <= first <= last <= self._recipe.steps, (
            f"no steps {first} to {last} of {self._recipe.steps}"
        )
        group = self._start(requests, [None] * len(requests), pairs, targets, first)
        step = first
        while step < last and group.going:
            assert self._runner is not None, "a group that is going has rows"
            looks = (s for s in range(step + 1, last) if self._recipe.is_validated_after(s))
            end, on_step = next(looks, last), self._cache.meter.on_step
            step = TrainingStretch(group, self._recipe, self._runner, step, end, on_step).run()
            if self._recipe.is_validated_after(step):
                self._validate(group)
        return self._finish(requests, group)

    def validated(
        self,
        featurizers: Sequence[tuple[Intervention, Featurizer]],
        pairs: Sequence[Encoded],
        targets: Targets,
    ) -> list[FitOutcome | FitFault]:
        """Validates featurizers that are not trained (seed 0) on the validation part of `pairs`."""
        requests = [FitRequest(intervention, 0) for intervention, _ in featurizers]
        group = self._start(
            requests, [featurizer for _, featurizer in featurizers], pairs, targets, 0
        )
        self._validate(group)
        return self._finish(requests, group)

    def activations(
        self, intervention: Intervention, pairs: Sequence[Encoded]
    ) -> tuple[Float[Tensor, "input width"], tuple[int | Ids | None, ...]]:
        """Returns the activation at the unit (float32) of each distinct input of the training part
        of `pairs`, sources first, and its label.

        The label is the number of the variable's value there. Where values are not known, that of a
        source is the counterfactual of the first pair that has it, and an input that is only a base
        has none. Raises: as `unit.captured`.
        """
        train, _ = split_pairs([pair.index for pair in pairs], self._recipe.validation)
        chosen = [pair for pair in pairs if pair.index in set(train)]
        unit = self._captured(intervention, chosen)
        inputs = inputs_of(unit.rows).values()
        vectors = [(unit.source if is_source else unit.base)[at] for is_source, at in inputs]
        variable = intervention.variable or ""
        source = intervention.units[0].source or next(iter(pairs[0].sources))
        labels = tuple(_label(chosen[at], variable, source, is_source) for is_source, at in inputs)
        return torch.stack(vectors), labels

    def _captured(self, intervention: Intervention, pairs: Sequence[Encoded]) -> CapturedUnit:
        """Returns the intervention's unit on `pairs`, captured once for all interventions and calls
        that share it, while memory allows."""
        unit = unit_of(intervention)
        key = unit.site, unit.source_site, unit.source, unit.subspace.coordinates
        known, found = self._known.pop(key, ((), None))
        if found is None or len(known) != len(pairs) or not all(map(is_, known, pairs)):
            found = capture_unit(
                self._network, self._hook_points, self._executor, self._cache, unit, pairs
            )
        self._known[key] = pairs, found
        while sum(u.nbytes for _, u in self._known.values()) > KEPT_BYTES and len(self._known) > 1:
            self._known.popitem(last=False)
        return found

    def _start(
        self,
        requests: Sequence[FitRequest],
        given: Sequence[Featurizer | None],
        pairs: Sequence[Encoded],
        targets: Targets,
        first: int,
    ) -> FitGroup:
        """Returns the fits as of step `first`, with their rows ready to be run."""
        group, table = FitGroup(), RowTable()
        own = self._base_answers(pairs)
        parts = split_pairs([pair.index for pair in pairs], self._recipe.validation)
        for at, (one, featurizer) in enumerate(zip(requests, given, strict=True)):
            try:
                wanted = targets[one.intervention.id]
                used = [pair for pair in pairs if pair.index in wanted]
                train, held_out = _places(parts, used)
                if not len(train):
                    raise JobError(
                        f"{one.intervention.variable}: no pairs to fit on, besides those to "
                        f"validate on"
                    )
                self._check_loss(wanted)
                unit = self._captured(one.intervention, used)
                both = [wanted[p.index] for p in used], [own[p.index] for p in used]
                answers = table.answers(unit, *both)
                change = np.array([ours != theirs for ours, theirs in zip(*both, strict=True)])
                checkpoint = self._checkpoint(one, unit, train, featurizer, first)
                unrun = self._unrun(table, answers, unit.free)
                answers.rows[unit.free] = NONE
                group.alive[at] = FitState(
                    one, unit, train, held_out, answers, change, unrun, checkpoint
                )
            except Exception as error:  # noqa: BLE001  reported for its fit, sparing the others
                group.fail({at: error})
        if group.alive and (self._runner is None or self._runner.rows != tuple(table.rows)):
            self._runner = self._runner_of(table.rows)
        return group

    def _unrun(
        self, table: RowTable, answers: AnswerTable, free: Bool[NDArray[np.bool_], "pair"]
    ) -> Outcomes:
        """Returns the outcomes of the free pairs, by running their bases."""
        found = Outcomes(np.zeros(answers.rows.shape, np.float32), np.zeros_like(answers.rows))
        where = np.nonzero((answers.rows != NONE) & free[:, None])
        numbers = (a[where].tolist() for a in (answers.rows, answers.wanted, answers.own))
        wanted = [(table.rows[row].unpatched, *ids) for row, *ids in zip(*numbers, strict=True)]
        if wanted:
            found.losses[where], found.ids[where] = zip(
                *self._unpatched.outcomes(wanted), strict=True
            )
        return found

    def _runner_of(self, rows: Sequence[Row]) -> RowRunner:
        return RowRunner(
            self._network,
            self._hook_points,
            self._executor,
            self._cache,
            self._recipe.loss,
            self._tolerance,
            self._limit,
            rows,
            self._check,
        )

    def _checkpoint(
        self,
        request: FitRequest,
        unit: CapturedUnit,
        train: Indices,
        given: Featurizer | None,
        first: int,
    ) -> Checkpoint:
        featurizer = (
            initialise(request, unit, train, self._hook_points, self._recipe)
            if given is None
            else given
        )
        name = f"intervention {request.intervention.id}, seed {request.seed}"
        checkpoint = Checkpoint(name, featurizer.to(self._network.device))
        if request.state is not None:
            checkpoint.restore(request.state, self._recipe)
        assert checkpoint.stopped or checkpoint.step == first, (
            f"a fit at step {checkpoint.step} does not go on from {first}"
        )
        return checkpoint

    def _base_answers(self, pairs: Sequence[Encoded]) -> dict[int, Ids]:
        """Returns the bases' own answers by pair index: as the pair says, or (one token) as the
        model answers."""
        unanswered = [pair for pair in pairs if "base" not in pair.answers]
        predictions = self._cache.predictions(
            [Row(pair.base, (), pair.choices) for pair in unanswered]
        )
        results = {pair.index: pair.answers["base"] for pair in pairs if "base" in pair.answers}
        return results | {
            pair.index: (prediction.id,)
            for pair, prediction in zip(unanswered, predictions, strict=True)
        }

    def _check_loss(self, wanted: Mapping[int, Ids]) -> None:
        """Raises: JobError for a loss of one token if answers have several."""
        long = next((index for index, ids in wanted.items() if len(ids) > 1), None)
        if self._recipe.loss != "cross_entropy" and long is not None:
            raise JobError(
                f"fit.loss: {self._recipe.loss} is of one token, and the answer of pair {long} has "
                f"{len(wanted[long])}; use cross_entropy"
            )

    @torch.no_grad()
    def _validate(self, group: FitGroup) -> None:
        """Validates all fits of the group."""
        fits = dict(sorted(group.going.items(), key=lambda one: one[1].unit.width))
        if not fits:
            return
        assert self._runner is not None, "a group has rows"
        units = UnitVectors(fit.unit for fit in fits.values())
        rows_of = [f.rows_of(f.held_out[None], units.first[id(f.unit)]) for f in fits.values()]
        rows = Schedule(rows_of, self._runner.order, units.device)[0]
        both = units.at(rows.pairs, by_width((f.width, f.batch) for f in rows_of))
        vectors = []
        for fit in fits.values():
            featurizer = fit.checkpoint.featurizer
            featurizer.harden()
            vectors.append((fit.unit.width, featurizer.interchange(*next(both[fit.unit.width]))))
        written = {width: torch.cat(some) for width, some in by_width(vectors).items()}
        outcomes, faults = self._runner.outcomes(rows, written)
        order = list(fits)
        group.fail({order[at]: error for at, error in faults.items()})
        first = 0
        for (at, fit), of_fit in zip(fits.items(), rows_of, strict=True):
            seen = outcomes.part(slice(first, first := first + of_fit.slots))
            if at in group.alive:
                self._record(group, at, fit.validation(seen))

    def _record(self, group: FitGroup, at: int, validation: Validation) -> None:
        """Records a validation result, or that it is not finite."""
        checkpoint = group.alive[at].checkpoint
        if validation.loss is not None and not math.isfinite(validation.loss):
            step = checkpoint.step
            error = group.alive[at].diverged("validation loss is", step, self._recipe.rate(step))
            group.fail({at: error})
            return
        checkpoint.record_validation(validation, self._recipe.patience)

    def _finish(
        self, requests: Sequence[FitRequest], group: FitGroup
    ) -> list[FitOutcome | FitFault]:
        for at, fit_state in list(group.alive.items()):
            if fit_state.has_collapsed(self._recipe):
                group.fail({at: fit_state.collapse()})
        return [
            FitFault(one.intervention.id, one.seed, group.faults[at])
            if at in group.faults
            else group.alive[at].fit(self._recipe)
            for at, one in enumerate(requests)
        ]


def _places(
    parts: tuple[Sequence[int], Sequence[int]], used: Sequence[Encoded]
) -> tuple[Indices, Indices]:
    """Returns the places in `used` of the pairs to train on, and of those to validate on."""
    places = {pair.index: place for place, pair in enumerate(used)}
    train, held_out = (
        np.array([places[i] for i in part if i in places], dtype=np.int64) for part in parts
    )
    return train, held_out


def _label(pair: Encoded, variable: str, source: str, is_source: bool) -> int | Ids | None:
    values = pair.values.get(variable)
    if values is not None:
        return values[source if is_source else "base"]
    return pair.counterfactual.get(variable) if is_source else None
