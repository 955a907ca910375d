"""Trains featurizers, many at once: their rows travel in one batch, whatever their layers, sizes,
seeds and variables.

The loss of a fit in a step is the mean over its own batch, plus its featurizer's penalty. A row
whose source and base agree up to the unit (`Path.is_free`) is not run: its outcome is the base's
own run, which counts in the mean with its loss and has no gradient.

Invariants: fits do not influence each other (beyond float rounding; the same company gives the same
bytes); the model and what is captured are constants; a fit that fails takes nobody with it.
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
from raysearch.engine.training.recipe import batch_of, divided, optimizer_of
from raysearch.engine.training.training_rows import RowLoss, RowRunner, TrainingRow
from raysearch.engine.training.unit import CapturedUnit, captured, inputs_of, turns_of, unit_of
from raysearch.errors import JobError

_Known = dict[tuple[object, ...], CapturedUnit]


class Trainer:
    """Trains on one network by `path`, with `captures`, at most `rows.rows` rows in a forward and
    backward pass.

    `tolerance` (logits): in validation, an output closer than this to another is decided by the
    oracle.
    """

    def __init__(
        self,
        network: Network,
        taps: Components,
        path: Executor,
        captures: ActivationCache,
        recipe: FitKeys,
        tolerance: float,
        rows: RowLimit,
    ) -> None:
        self._network = network
        self._taps = taps
        self._path = path
        self._captures = captures
        self._recipe = recipe
        self._rows = RowRunner(network, taps, path, captures, recipe.loss, tolerance, rows)

    def fit(
        self,
        asked: Sequence[FitRequest],
        pairs: Sequence[Encoded],
        targets: Targets,
        first: int,
        last: int,
    ) -> list[FitOutcome | FitFault]:
        """Each trained from step `first` to step `last` (of `recipe.steps`), where it does not stop
        before."""
        assert 0 <= first <= last <= self._recipe.steps, (
            f"no steps {first} to {last} of {self._recipe.steps}"
        )
        group = self._begun(asked, [None] * len(asked), pairs, targets, first)
        for step in range(first, last):
            if not group.going:
                break
            self._step(group, step)
            if self._recipe.is_looked_at(step + 1):
                self._look(group)
        return self._ended(asked, group)

    def validated(
        self,
        featurizers: Sequence[tuple[Intervention, Featurizer]],
        pairs: Sequence[Encoded],
        targets: Targets,
    ) -> list[FitOutcome | FitFault]:
        """Featurizers that take no steps (seed 0), looked at on the validation part of `pairs`."""
        asked = [FitRequest(intervention, 0) for intervention, _ in featurizers]
        group = self._begun(asked, [featurizer for _, featurizer in featurizers], pairs, targets, 0)
        self._look(group)
        return self._ended(asked, group)

    def activations(
        self, intervention: Intervention, pairs: Sequence[Encoded]
    ) -> tuple[Float[Tensor, "input width"], tuple[Ids | None, ...]]:
        """What each distinct input of the training part of `pairs` has at the unit (float32),
        sources first; and its label.

        The label of a source is the counterfactual of the first pair in which it lends; an input
        that is only a base has none. Raises: as `unit.captured`.
        """
        train, _ = divided([pair.index for pair in pairs], self._recipe.validation)
        chosen = [pair for pair in pairs if pair.index in set(train)]
        unit = self._captured(intervention, chosen, {})
        inputs = inputs_of([unit.lanes[pair.index].row for pair in chosen]).values()
        vectors = [(unit.source if lends else unit.base)[at] for lends, at in inputs]
        variable = intervention.variable or ""
        labels = tuple(
            chosen[at].counterfactual.get(variable) if lends else None for lends, at in inputs
        )
        return torch.stack(vectors), labels

    def _captured(
        self, intervention: Intervention, pairs: Sequence[Encoded], known: _Known
    ) -> CapturedUnit:
        """The intervention's unit on `pairs`, shared by all that have the same."""
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
                self._network, self._taps, self._path, self._captures, unit, pairs
            )
        return known[key]

    def _begun(
        self,
        asked: Sequence[FitRequest],
        given: Sequence[Featurizer | None],
        pairs: Sequence[Encoded],
        targets: Targets,
        first: int,
    ) -> FitGroup:
        """The fits as they stand at step `first`; the bases of rows that are not run are looked at."""
        group, known = FitGroup(), _Known()
        own = self._own(pairs)
        for at, (one, featurizer) in enumerate(zip(asked, given, strict=True)):
            try:
                wanted = targets[one.intervention.id]
                used = [pair for pair in pairs if pair.index in wanted]
                parts = divided([pair.index for pair in pairs], self._recipe.validation)
                train, held = (tuple(index for index in part if index in wanted) for part in parts)
                if not train:
                    raise JobError(
                        f"{one.intervention.variable}: no pairs to fit on, besides those to "
                        f"validate on"
                    )
                self._check_loss(wanted)
                unit = self._captured(one.intervention, used, known)
                answers = {
                    i: turns_of(self._path, unit.lanes[i], wanted[i], own[i])
                    for i in (p.index for p in used)
                }
                change = frozenset(i for i in answers if wanted[i] != own[i])
                progress = self._progress(one, unit, train, featurizer, first)
                group.alive[at] = FitState(one, unit, train, held, answers, change, progress)
            except Exception as error:  # noqa: BLE001  as in measure.py: told of its fit, sparing the others
                group.fail({at: error})
        self._rows.look(
            (turn.lane.row.alone, turn.wanted, turn.own)
            for fitting in group.alive.values()
            for index in fitting.free([*fitting.train, *fitting.held])
            for turn in fitting.answers[index]
        )
        return group

    def _progress(
        self,
        asked: FitRequest,
        unit: CapturedUnit,
        train: Sequence[int],
        given: Featurizer | None,
        first: int,
    ) -> Checkpoint:
        featurizer = (
            initialise(asked, unit, train, self._taps, self._recipe) if given is None else given
        )
        featurizer.to(self._network.device)
        name = f"intervention {asked.intervention.id}, seed {asked.seed}"
        progress = Checkpoint(
            name, featurizer, optimizer_of(self._recipe, featurizer) if given is None else None
        )
        if asked.state is not None:
            progress.take_up(asked.state, self._recipe)
        assert progress.stopped or progress.step == first, (
            f"a fit at step {progress.step} does not go on from {first}"
        )
        return progress

    def _own(self, pairs: Sequence[Encoded]) -> dict[int, Ids]:
        """The bases' own answers, by the pair's index: as the pair says, or (one token) as the
        model does."""
        unsaid = [pair for pair in pairs if "base" not in pair.answers]
        decisions = self._captures.decisions([Row(pair.base, (), pair.choices) for pair in unsaid])
        said = {pair.index: pair.answers["base"] for pair in pairs if "base" in pair.answers}
        return said | {
            pair.index: (decision.id,) for pair, decision in zip(unsaid, decisions, strict=True)
        }

    def _check_loss(self, wanted: Mapping[int, Ids]) -> None:
        """Raises: JobError for a loss that is of one token, where answers have several."""
        long = next((index for index, ids in wanted.items() if len(ids) > 1), None)
        if self._recipe.loss != "cross_entropy" and long is not None:
            raise JobError(
                f"fit.loss: {self._recipe.loss} is of one token, and the answer of pair {long} has "
                f"{len(wanted[long])}; use cross_entropy"
            )

    def _step(self, group: FitGroup, step: int) -> None:
        recipe = self._recipe
        asks: list[TrainingRow] = []
        begun: dict[int, tuple[list[int], Tensor, range]] = {}
        for at, fitting in group.going.items():
            indices = batch_of(fitting.train, recipe.batch, fitting.asked.seed, step)
            try:
                fitting.progress.featurizer.anneal(step / max(1, recipe.steps - 1))
                vectors, own = fitting.asks(at, fitting.live(indices))
            except Exception as error:  # noqa: BLE001  as in measure.py
                group.fail({at: error})
                continue
            begun[at] = indices, vectors, range(len(asks), len(asks) + len(own))
            asks += own
        losses, gradients, faults = self._rows.gradients(asks)
        group.fail(faults)
        said: dict[int, tuple[Tensor, Tensor]] = {}
        for at, (indices, vectors, rows) in begun.items():
            if at in group.alive:
                fitting, zero = group.alive[at], vectors.detach()  # of no rows, where none is run
                gradient = (
                    torch.stack([gradients[row] for row in rows]) / len(indices) if rows else zero
                )
                try:
                    fitting.learn(vectors, gradient, recipe.factor(step))
                except Exception as error:  # noqa: BLE001  as in measure.py
                    group.fail({at: error})
                    continue
                free = sum(
                    o.loss for index in fitting.free(indices) for o in self._alone(fitting, index)
                )
                loss = torch.stack([losses[row] for row in rows]).sum() if rows else zero.sum()
                said[at] = (loss + free) / len(indices), fitting.is_finite
        self._take_notice(group, said, step)

    def _take_notice(
        self, group: FitGroup, said: Mapping[int, tuple[Tensor, Tensor]], step: int
    ) -> None:
        """One look at the device for all fits: their losses, and whether their parameters are
        finite."""
        if not said:
            return
        table = torch.stack(
            [torch.stack((loss, finite.to(loss))) for loss, finite in said.values()]
        )
        good = table.isfinite().all(1).tolist()
        for at, (loss, finite), is_good in zip(said, table.tolist(), good, strict=True):
            progress = group.alive[at].progress
            if not (finite and is_good):
                what = "parameters are" if is_good else "loss is"
                group.fail({at: group.alive[at].diverged(what, *self._rate(step))})
                continue
            progress.step = step + 1
            progress.losses += (loss,)

    def _rate(self, step: int) -> tuple[int, float]:
        """The step, and its learning rate."""
        return step, self._recipe.learning_rate * self._recipe.factor(step)

    @torch.no_grad()
    def _look(self, group: FitGroup) -> None:
        """Validates."""
        asks: list[TrainingRow] = []
        rows: dict[int, range] = {}
        for at, fitting in group.going.items():
            fitting.progress.featurizer.harden()
            _, own = fitting.asks(at, fitting.live(fitting.held))
            rows[at] = range(len(asks), len(asks) + len(own))
            asks += own
        outcomes, faults = self._rows.outcomes(asks)
        group.fail(faults)
        for at, fitting in group.going.items():
            ran = iter([outcomes[row] for row in rows[at]])
            free = set(fitting.free(fitting.held))
            seen = {
                index: self._alone(fitting, index)
                if index in free
                else [next(ran) for _ in fitting.answers[index]]
                for index in fitting.held
            }
            validation = fitting.validation(seen)
            if validation.loss is not None and not math.isfinite(validation.loss):
                group.fail(
                    {at: fitting.diverged("validation loss is", *self._rate(fitting.progress.step))}
                )
                continue
            fitting.progress.look(validation, self._recipe.patience)

    def _alone(self, fitting: FitState, index: int) -> list[RowLoss]:
        return [
            self._rows.alone(turn.lane.row.alone, turn.wanted, turn.own)
            for turn in fitting.answers[index]
        ]

    def _ended(self, asked: Sequence[FitRequest], group: FitGroup) -> list[FitOutcome | FitFault]:
        for at, fitting in list(group.alive.items()):
            if fitting.has_collapsed(self._recipe):
                group.fail({at: fitting.collapse()})
        return [
            FitFault(one.intervention.id, one.seed, group.faults[at])
            if at in group.faults
            else group.alive[at].fit(self._recipe)
            for at, one in enumerate(asked)
        ]
