"""Trains featurizers, many at once: their rows share batches, whatever their layers, sizes, seeds
and variables.

The loss of a fit in a step is the mean over its own batch of pairs plus its featurizer's penalty. A
row whose source and base agree up to the unit (`Executor.is_free`) is not run: its outcome is the
base's own run, which counts in the mean and has no gradient.

Invariants: fits do not influence each other (beyond float rounding; equal batches give equal
bytes); the model and captured activations are constant; a failing fit affects no other.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
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
from raysearch.engine.patching.rows import Row
from raysearch.engine.training.checkpoint import Checkpoint
from raysearch.engine.training.fit import FitFault, FitOutcome, FitRequest, Targets
from raysearch.engine.training.fit_state import FitGroup, FitState
from raysearch.engine.training.initialise import initialise
from raysearch.engine.training.recipe import batch_of, optimizer_of, split_pairs
from raysearch.engine.training.training_rows import RowLoss, RowRunner, TrainingRow
from raysearch.engine.training.unit import (
    CapturedUnit,
    answer_tokens_of,
    captured,
    inputs_of,
    unit_of,
)
from raysearch.errors import JobError

_Known = dict[tuple[object, ...], CapturedUnit]


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
        self._rows = RowRunner(network, hook_points, executor, cache, recipe.loss, tolerance, rows)

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
        for step in range(first, last):
            if not group.going:
                break
            self._step(group, step)
            if self._recipe.is_validated_after(step + 1):
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
        unit = self._captured(intervention, chosen, {})
        inputs = inputs_of([unit.pair_rows[pair.index].row for pair in chosen]).values()
        vectors = [(unit.source if is_source else unit.base)[at] for is_source, at in inputs]
        variable = intervention.variable or ""
        source = intervention.units[0].source or next(iter(pairs[0].sources))
        labels = tuple(_label(chosen[at], variable, source, is_source) for is_source, at in inputs)
        return torch.stack(vectors), labels

    def _captured(
        self, intervention: Intervention, pairs: Sequence[Encoded], known: _Known
    ) -> CapturedUnit:
        """Returns the intervention's unit on `pairs`, captured once for all interventions that
        share it."""
        unit = unit_of(intervention)
        key = (
            unit.site,
            unit.source_site,
            unit.source,
            unit.subspace.coordinates,
            tuple(pair.index for pair in pairs),
        )
        if key not in known:
            known[key] = captured(
                self._network, self._hook_points, self._executor, self._cache, unit, pairs
            )
        return known[key]

    def _start(
        self,
        requests: Sequence[FitRequest],
        given: Sequence[Featurizer | None],
        pairs: Sequence[Encoded],
        targets: Targets,
        first: int,
    ) -> FitGroup:
        """Returns the fits as of step `first`, and runs the bases of rows that are not run with
        patches."""
        group, known = FitGroup(), _Known()
        own = self._base_answers(pairs)
        for at, (one, featurizer) in enumerate(zip(requests, given, strict=True)):
            try:
                wanted = targets[one.intervention.id]
                used = [pair for pair in pairs if pair.index in wanted]
                parts = split_pairs([pair.index for pair in pairs], self._recipe.validation)
                train, held_out = (
                    tuple(index for index in part if index in wanted) for part in parts
                )
                if not train:
                    raise JobError(
                        f"{one.intervention.variable}: no pairs to fit on, besides those to "
                        f"validate on"
                    )
                self._check_loss(wanted)
                unit = self._captured(one.intervention, used, known)
                answers = {
                    i: answer_tokens_of(self._executor, unit.pair_rows[i], wanted[i], own[i])
                    for i in (p.index for p in used)
                }
                change = frozenset(i for i in answers if wanted[i] != own[i])
                checkpoint = self._checkpoint(one, unit, train, featurizer, first)
                group.alive[at] = FitState(one, unit, train, held_out, answers, change, checkpoint)
            except Exception as error:  # noqa: BLE001  reported for its fit, sparing the others
                group.fail({at: error})
        self._rows.prepare_unpatched(
            (token.pair_row.row.unpatched, token.wanted, token.own)
            for fit_state in group.alive.values()
            for index in fit_state.free([*fit_state.train, *fit_state.held_out])
            for token in fit_state.answers[index]
        )
        return group

    def _checkpoint(
        self,
        requests: FitRequest,
        unit: CapturedUnit,
        train: Sequence[int],
        given: Featurizer | None,
        first: int,
    ) -> Checkpoint:
        featurizer = (
            initialise(requests, unit, train, self._hook_points, self._recipe)
            if given is None
            else given
        )
        featurizer.to(self._network.device)
        name = f"intervention {requests.intervention.id}, seed {requests.seed}"
        checkpoint = Checkpoint(
            name, featurizer, optimizer_of(self._recipe, featurizer) if given is None else None
        )
        if requests.state is not None:
            checkpoint.restore(requests.state, self._recipe)
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

    def _step(self, group: FitGroup, step: int) -> None:
        recipe = self._recipe
        rows_to_run: list[TrainingRow] = []
        begun: dict[int, tuple[list[int], Tensor, range]] = {}
        for at, fit_state in group.going.items():
            indices = batch_of(fit_state.train, recipe.batch, fit_state.request.seed, step)
            try:
                fit_state.checkpoint.featurizer.anneal(step / max(1, recipe.steps - 1))
                vectors, own = fit_state.training_rows(at, fit_state.live(indices))
            except Exception as error:  # noqa: BLE001  reported for its fit, sparing the others
                group.fail({at: error})
                continue
            begun[at] = indices, vectors, range(len(rows_to_run), len(rows_to_run) + len(own))
            rows_to_run += own
        losses, gradients, faults = self._rows.gradients(rows_to_run)
        group.fail(faults)
        results: dict[int, tuple[Tensor, Tensor]] = {}
        for at, (indices, vectors, rows) in begun.items():
            if at in group.alive:
                fit_state, zero = group.alive[at], vectors.detach()  # without rows if none is run
                gradient = (
                    torch.stack([gradients[row] for row in rows]) / len(indices) if rows else zero
                )
                try:
                    fit_state.take_step(vectors, gradient, recipe.factor(step))
                except Exception as error:  # noqa: BLE001  reported for its fit, sparing the others
                    group.fail({at: error})
                    continue
                free = sum(
                    o.loss
                    for index in fit_state.free(indices)
                    for o in self._unpatched(fit_state, index)
                )
                loss = torch.stack([losses[row] for row in rows]).sum() if rows else zero.sum()
                results[at] = (loss + free) / len(indices), fit_state.is_finite
        self._record_losses(group, results, step)

    def _record_losses(
        self, group: FitGroup, results: Mapping[int, tuple[Tensor, Tensor]], step: int
    ) -> None:
        """Reads the losses of all fits, and whether their parameters are finite, in one transfer
        from the device."""
        if not results:
            return
        table = torch.stack(
            [torch.stack((loss, finite.to(loss))) for loss, finite in results.values()]
        )
        good = table.isfinite().all(1).tolist()
        for at, (loss, finite), is_good in zip(results, table.tolist(), good, strict=True):
            checkpoint = group.alive[at].checkpoint
            if not (finite and is_good):
                what = "parameters are" if is_good else "loss is"
                group.fail({at: group.alive[at].diverged(what, *self._rate(step))})
                continue
            checkpoint.step = step + 1
            checkpoint.losses += (loss,)

    def _rate(self, step: int) -> tuple[int, float]:
        """Returns the step and its learning rate."""
        return step, self._recipe.learning_rate * self._recipe.factor(step)

    @torch.no_grad()
    def _validate(self, group: FitGroup) -> None:
        """Validates all fits of the group."""
        rows_to_run: list[TrainingRow] = []
        rows: dict[int, range] = {}
        for at, fit_state in group.going.items():
            fit_state.checkpoint.featurizer.harden()
            _, own = fit_state.training_rows(at, fit_state.live(fit_state.held_out))
            rows[at] = range(len(rows_to_run), len(rows_to_run) + len(own))
            rows_to_run += own
        outcomes, faults = self._rows.outcomes(rows_to_run)
        group.fail(faults)
        for at, fit_state in group.going.items():
            ran = iter([outcomes[row] for row in rows[at]])
            free = set(fit_state.free(fit_state.held_out))
            seen = {
                index: self._unpatched(fit_state, index)
                if index in free
                else [next(ran) for _ in fit_state.answers[index]]
                for index in fit_state.held_out
            }
            validation = fit_state.validation(seen)
            if validation.loss is not None and not math.isfinite(validation.loss):
                group.fail(
                    {
                        at: fit_state.diverged(
                            "validation loss is", *self._rate(fit_state.checkpoint.step)
                        )
                    }
                )
                continue
            fit_state.checkpoint.record_validation(validation, self._recipe.patience)

    def _unpatched(self, fit_state: FitState, index: int) -> list[RowLoss]:
        return [
            self._rows.unpatched(token.pair_row.row.unpatched, token.wanted, token.own)
            for token in fit_state.answers[index]
        ]

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


def _label(pair: Encoded, variable: str, source: str, is_source: bool) -> int | Ids | None:
    values = pair.values.get(variable)
    if values is not None:
        return values[source if is_source else "base"]
    return pair.counterfactual.get(variable) if is_source else None
