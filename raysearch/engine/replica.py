"""A replica: a model, the encoded pairs, and `do`, which takes a task and returns its events.

Invariants: outputs do not depend on how work was grouped into tasks; an intervention of a task
returns one `Measured` for each block, up to where its lease ends or it fails, and one `Failed`
where it fails; `do` raises no error that an intervention causes.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import torch

from raysearch.causal import EVERY, Pair
from raysearch.core.answers import matchers_of
from raysearch.core.events import (
    Attributed,
    Block,
    Encoded,
    Event,
    Failed,
    Measured,
    Opened,
    Screened,
    Task,
)
from raysearch.core.hypothesis import Intervention
from raysearch.core.runner_settings import DEFAULT_SETTINGS, RunnerSettings
from raysearch.engine.encoding.positions import common_length
from raysearch.engine.execution.answer_scores import AnswerColumns
from raysearch.engine.execution.evaluate import Fault, RowRequest
from raysearch.engine.execution.memory import memory_in_use
from raysearch.engine.execution.outputs import Outputs
from raysearch.engine.execution.predict import Prediction, checked_prediction
from raysearch.engine.execution.usage import Usage, UsageMeter
from raysearch.engine.leased_run import LeasedRun
from raysearch.engine.model_runner import ModelRunner, model_facts
from raysearch.engine.networks.network import LanguageModel, LoadedNetwork, Network, tokens_of
from raysearch.engine.patching.build import ablation_sources, build_row, other_source
from raysearch.engine.patching.build_swaps import SwapBuilder
from raysearch.engine.patching.rows import Row
from raysearch.engine.patching.subspace_operations import Featurizers
from raysearch.engine.task_events import failed_event, fitted_event, pairs_of
from raysearch.engine.training.fit_request import FitFault
from raysearch.engine.training.seeds import fit_seeds, targets_of


class Replica:
    """A loaded model with encoded pairs, checked against the oracle. `worker`, `node`: its names in
    events.

    `components`: the components of the job, on which fast executors are checked. `meter`: counts
    what it uses.

    Raises: PairsError, PositionError for pairs that cannot be encoded; ModelError for a model whose
    blocks are not found, that is too short for the longest pair, or that does not take the pairs.
    """

    def __init__(
        self,
        loaded: LoadedNetwork,
        pairs: Sequence[Pair],
        positions: Sequence[str],
        variables: Sequence[str],
        worker: str,
        node: str = "",
        settings: RunnerSettings = DEFAULT_SETTINGS,
        components: Sequence[str] = ("residual",),
        meter: UsageMeter | None = None,
    ) -> None:
        self._meter = UsageMeter() if meter is None else meter
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        with self._meter.phase("load"):
            network, encode = loaded.open(pairs)
            encoded = encode(pairs, positions, variables)
        tokens = common_length(encoded) if EVERY in positions else 0
        self._worker, self._node = worker, node
        self._loaded, self._raw = loaded, pairs
        self._settings, self._components = settings, components
        self._positions = positions
        self._pairs = {e.index: e for e in encoded}
        self._every_pair = tuple(self._pairs.values())
        self._leased = LeasedRun(self._pairs, matchers_of(encoded))
        self._tokens = max((e.longest for e in encoded), default=1)
        self._runner = ModelRunner(
            *(network, loaded.dtype, encoded, components, settings, self._meter),
            *(loaded.digest, positions),
        )
        self._random: ModelRunner | None = None
        self._builders: dict[ModelRunner, SwapBuilder] = {}
        self._featurizers = Featurizers(network.device, settings.files)
        self.opened = Opened(model_facts(loaded, self._runner, tokens), encoded)

    def do(self, task: Task, tensors: Mapping[str, bytes] = MappingProxyType({})) -> list[Event]:
        """Returns the events of `task`. `tensors`: trained featurizers and states that it needs, by
        digest.

        Screening, attribution: one `Screened` or `Attributed` for each block, or one `Failed` of
        the whole task. A fit: for each seed one `Fitted` or one `Failed`. Otherwise, for each
        intervention, one `Measured` for each block or, for one that fails, for the blocks before
        it, and one `Failed`. With a lease the blocks may end earlier: the last `Measured` is
        `stopped`.
        """
        with self._meter.phase("other"):
            if task.kind == "screen":
                return self._by_block(task, self._screened)
            if task.kind == "attribute":
                return self._by_block(task, self._attributed)
            if task.kind == "fit":
                return [
                    event for part in self._by_runner(task) for event in self._fit(*part, tensors)
                ]
            self._featurizers.take(
                tensors, [i.fit for i in task.interventions if i.fit is not None]
            )
            if task.lease:
                return self._leased.do(task, self._interventions)
            return self._interventions(task)

    def _interventions(self, task: Task) -> list[Event]:
        return [event for part in self._by_runner(task) for event in self._measure(*part)]

    def usage(self) -> Usage:
        """Returns the usage since the last call; at first, that of opening."""
        return self._meter.take(memory_in_use())

    def _by_runner(self, task: Task) -> Iterator[tuple[ModelRunner, Task]]:
        """Yields the parts of a task for the model and for the one with random weights."""
        for is_random in (False, True):
            interventions = tuple(
                i for i in task.interventions if i.control_kind.random_weights == is_random
            )
            seeds = tuple(s for s in task.seeds if s.intervention in interventions)
            if interventions:
                runner = self._random_runner() if is_random else self._runner
                yield runner, replace(task, interventions=interventions, seeds=seeds)

    def _random_runner(self) -> ModelRunner:
        """Returns the model with random weights, made at first use because it takes as much memory
        as the model."""
        if self._random is None:
            with self._meter.phase("load"):
                loaded = self._loaded.reinitialised()
                network, _ = loaded.open(self._raw)
            encoded = self._every_pair
            self._random = ModelRunner(
                network,
                loaded.dtype,
                encoded,
                self._components,
                self._settings,
                self._meter,
                loaded.digest,
                self._positions,
            )
        return self._random

    def _fit(self, runner: ModelRunner, task: Task, tensors: Mapping[str, bytes]) -> list[Event]:
        began = time.perf_counter()
        pairs = [self._pairs[index] for block in task.blocks for index in block.pairs]
        targets = targets_of(task.interventions, pairs, self._pairs.values())
        with self._meter.phase("fit"):
            found = fit_seeds(runner.trainer, task.seeds, task.steps, pairs, targets, tensors)
        seconds = (time.perf_counter() - began) / len(task.seeds)
        events: list[Event] = []
        for seed in task.seeds:
            fit = found[seed.key]
            if isinstance(fit, FitFault):
                events.append(self._failed(task, seed.key, Fault(0, fit.error)))
            else:
                events.append(
                    fitted_event(task, seed, fit, {**self._origin(task), "seconds": seconds})
                )
        return events

    def _by_block(self, task: Task, do: Callable[[Task, Block], Event]) -> list[Event]:
        events: list[Event] = []
        for place, block in enumerate(task.blocks):
            try:
                events.append(do(task, block))
            except Exception as error:  # noqa: BLE001  the task itself has failed, and says so
                return [self._failed(task, None, Fault(place, error))]
        return events

    def _screened(self, task: Task, block: Block) -> Screened:
        began = time.perf_counter()
        pairs = [self._pairs[i] for i in block.pairs]
        names = ("base", *pairs[0].sources) if pairs else ()
        runs = {
            (p.index, name): Row(p.base if name == "base" else p.sources[name], (), p.choices)
            for p in pairs
            for name in names
        }
        predictions = self._unpatched(runs)
        found = {
            name: Outputs.of([predictions[p.index, name] for p in pairs], self._runner.near_tie)
            for name in names
        }
        outputs = {name: tuple(of.ids) for name, of in found.items()}
        return Screened(
            **self._origin(task),
            **pairs_of(block),
            base=outputs.pop("base", ()),
            sources=outputs,
            near_ties=sum(sum(of.near) for of in found.values()),
            seconds=time.perf_counter() - began,
            scores=self._runner.scoring.scores(
                self._runner.scoring.columns(pairs),
                [predictions[p.index, "base"][0].answer_logits for p in pairs],
            ),
        )

    def _unpatched(
        self, runs: Mapping[tuple[int, str], Row]
    ) -> dict[tuple[int, str], tuple[Prediction, ...]]:
        """Returns the predictions of the tokens of an answer, one after the other, for each run. A
        run is without intervention, and named by its pair and input."""
        found: dict[tuple[int, str], tuple[Prediction, ...]] = dict.fromkeys(runs, ())
        for token in range(self._tokens):
            if token:
                runs = {run: row.after(found[run][-1].id) for run, row in runs.items()}
            predictions = self._runner.cache.predictions(list(runs.values()))
            for (index, name), prediction in zip(runs, predictions, strict=True):
                what = f"pair {index}, {name}, without intervention"
                found[index, name] += (checked_prediction(prediction, what),)
        return found

    def _attributed(self, task: Task, block: Block) -> Attributed:
        began = time.perf_counter()
        with self._meter.phase("fit"):
            effects = self._runner.attributor.effects(
                [self._pairs[i] for i in block.pairs], task.units
            )
        return Attributed(
            **self._origin(task),
            **pairs_of(block),
            effects=effects,
            seconds=time.perf_counter() - began,
        )

    def _measure(self, runner: ModelRunner, task: Task) -> list[Event]:
        began = time.perf_counter()
        assert len(set(task.keys)) == len(task.keys), "a task names an intervention once"
        outputs = self._swap_outputs(runner, task)
        rest = tuple(i for i in task.interventions if i.key not in outputs)
        by_rows, faults = self._row_outputs(runner, replace(task, interventions=rest))
        outputs |= by_rows
        rows = len(task.interventions) * sum(len(block.pairs) for block in task.blocks)
        per_row = (time.perf_counter() - began) / max(rows, 1)
        columns = [
            self._runner.scoring.columns([self._pairs[index] for index in block.pairs])
            for block in task.blocks
        ]
        events: list[Event] = []
        for intervention in task.interventions:
            key = intervention.key
            if key not in faults:
                start = 0
                for block, answers in zip(task.blocks, columns, strict=True):
                    own = outputs[key].part(start, start := start + len(block.pairs))
                    events.append(self._measured(task, intervention, block, answers, own, per_row))
            elif len(task.blocks) > 1:
                events += self._block_by_block(runner, task, intervention)
            else:
                events.append(self._failed(task, key, faults[key]))
        return events

    def _swap_outputs(self, runner: ModelRunner, task: Task) -> dict[str, Outputs]:
        """Returns the outputs of those interventions that waves of swaps can run to the end."""
        pairs = [self._pairs[index] for block in task.blocks for index in block.pairs]
        if runner.swaps is None or not self._may_be_swaps(runner.network, pairs):
            return {}
        swaps, interventions = self._builder(runner).swaps(task.interventions, pairs)
        if swaps is None:
            return {}
        found = runner.swaps.measure(swaps, self._tokens).by_column(len(interventions))
        named = zip(interventions, found, strict=True)
        return {intervention.key: of for intervention, of in named if of is not None}

    def _may_be_swaps(self, network: Network, pairs: Sequence[Encoded]) -> bool:
        """Returns whether all rows on these pairs can be run to the end as arrays: texts keep their
        activations while they grow by an answer, tensors have one batch key."""
        if isinstance(network, LanguageModel):
            return all(self._stays(network, tokens_of(pair.base)) for pair in pairs)
        return self._has_one_batch_key

    @cached_property
    def _has_one_batch_key(self) -> bool:
        inputs = (at for pair in self._every_pair for at in (pair.base, *pair.sources.values()))
        return len({self._runner.network.batch_key(at) for at in inputs}) == 1

    def _builder(self, runner: ModelRunner) -> SwapBuilder:
        """Returns the builder of a model's swaps, which remembers what interventions share."""
        if runner not in self._builders:
            network, build = runner.network, partial(self._row, runner)
            share = network.share_activations if isinstance(network, LanguageModel) else None
            self._builders[runner] = SwapBuilder(build, runner.hook_points, share)
        return self._builders[runner]

    def _row_outputs(
        self, runner: ModelRunner, task: Task
    ) -> tuple[dict[str, Outputs], dict[str, Fault]]:
        """Returns the outputs of interventions run row by row, and the faults of the others."""
        requests, faults = self._requests(runner, task)
        outcome = runner.evaluator.measure(requests, self._tokens)
        faults.update(outcome.faults)
        predictions: dict[str, list[tuple[Prediction, ...]]] = {}
        for request in requests:
            key = request.intervention
            if key not in faults:
                predictions.setdefault(key, []).append(outcome.predictions[request])
        outputs = {key: Outputs.of(of, runner.near_tie) for key, of in predictions.items()}
        return outputs, faults

    def _stays(self, network: LanguageModel, length: int) -> bool:
        """Returns whether a text keeps its activations while it grows by an answer."""
        ends = (0,) * length, (0,) * (length + self._tokens - 1)
        return self._tokens == 1 or network.share_activations(*ends)

    def _block_by_block(
        self, runner: ModelRunner, task: Task, intervention: Intervention
    ) -> list[Event]:
        """Measures a failing intervention block by block up to the failure, so that a failure in a
        late block costs no earlier block."""
        events: list[Event] = []
        for block in task.blocks:
            events += self._measure(
                runner, replace(task, interventions=(intervention,), blocks=(block,))
            )
            if isinstance(events[-1], Failed):
                break
        return events

    def _requests(
        self, runner: ModelRunner, task: Task
    ) -> tuple[list[RowRequest], dict[str, Fault]]:
        """Returns the rows to run, pair by pair (interventions on a pair share cached runs), and
        the interventions that cannot be run."""
        requests: list[RowRequest] = []
        faults: dict[str, Fault] = {}
        for place, block in enumerate(task.blocks):
            for index in block.pairs:
                for intervention in task.interventions:
                    key = intervention.key
                    if key in faults:
                        continue
                    try:
                        row = self._row(runner, self._pairs[index], intervention)
                    except Exception as error:  # noqa: BLE001  reported, sparing the others
                        faults[key] = Fault(place, error)
                    else:
                        requests.append(RowRequest(key, place, index, row))
        return [request for request in requests if request.intervention not in faults], faults

    def _row(self, runner: ModelRunner, pair: Encoded, intervention: Intervention) -> Row:
        other = None
        if intervention.control_kind.other_source:
            other = other_source(pair, self._every_pair, intervention)
        others = ablation_sources(pair, self._every_pair, intervention)
        return build_row(pair, intervention, runner.hook_points, self._featurizers, other, others)

    def _measured(
        self,
        task: Task,
        intervention: Intervention,
        block: Block,
        answers: AnswerColumns | None,
        found: Outputs,
        per_row: float,
    ) -> Measured:
        return Measured(
            **self._origin(task),
            **pairs_of(block),
            intervention=intervention.key,
            outputs=tuple(found.ids),
            near_ties=sum(found.near),
            rows=sum(map(len, found.ids)),
            seconds=per_row * len(found.ids),
            scores=self._runner.scoring.scores(answers, found.answer_logits, intervention),
        )

    def _origin(self, task: Task) -> dict[str, Any]:
        """Returns the fields of an event that say which task it is of, and where that was done."""
        return {
            "task": task.id,
            "device": self.opened.facts.device,
            "worker": self._worker,
            "attempt": task.attempt,
        }

    def _failed(self, task: Task, key: str | None, fault: Fault) -> Failed:
        return failed_event(task, key, fault, self._worker, self._node)
