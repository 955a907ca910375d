"""One replica: a model, the encoded pairs, and `do`: a task in, its events out.

Invariants: outputs do not depend on how the work was grouped into tasks; an intervention of a task
comes back as one `Measured` for each block up to where it fails, and then as one `Failed`; `do`
raises nothing that is an intervention's fault.
"""

import hashlib
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch

from raysearch.causal import EVERY, Pair
from raysearch.core.events import (
    Attributed,
    Block,
    Encoded,
    Event,
    Failed,
    Fitted,
    Ids,
    Measured,
    ModelFacts,
    Opened,
    Screened,
    Seed,
    Task,
)
from raysearch.core.hypothesis import Intervention
from raysearch.core.runner_settings import AS_THEY_COME, RunnerSettings
from raysearch.engine.encoding.positions import every
from raysearch.engine.execution.evaluate import Fault, RowRequest
from raysearch.engine.execution.memory import memory_in_use
from raysearch.engine.execution.predict import Prediction, checked
from raysearch.engine.execution.usage import Usage, UsageMeter
from raysearch.engine.model_runner import ModelRunner
from raysearch.engine.networks.network import LoadedNetwork
from raysearch.engine.patching.build import ablation_sources, build_row, other_source
from raysearch.engine.patching.featurized import Featurizers
from raysearch.engine.patching.rows import Row
from raysearch.engine.training.fit import FitFault, FitOutcome
from raysearch.engine.training.seeds import fit_seeds, targets_of


class Replica:
    """A loaded model with its pairs encoded, checked against the oracle. `worker`, `node`: who it
    says it is in events.

    `components`: those that will be asked for; the fast path is checked on them. `meter`: where
    what it uses is counted.

    Raises: PairsError, PositionError for pairs that cannot be encoded; ModelError for a model whose
    blocks are not found, that is too short for the longest pair, or does not take them.
    """

    def __init__(
        self,
        loaded: LoadedNetwork,
        pairs: Sequence[Pair],
        positions: Sequence[str],
        variables: Sequence[str],
        worker: str,
        node: str = "",
        settings: RunnerSettings = AS_THEY_COME,
        components: Sequence[str] = ("residual",),
        meter: UsageMeter | None = None,
    ) -> None:
        self._meter = UsageMeter() if meter is None else meter
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        with self._meter.phase("load"):
            network, encode = loaded.open(pairs)
            encoded = encode(pairs, positions, variables)
        tokens = every(encoded) if EVERY in positions else 0
        self._worker, self._node = worker, node
        self._loaded, self._raw, self._settings, self._components = (
            loaded,
            pairs,
            settings,
            components,
        )
        self._pairs = {e.index: e for e in encoded}
        self._tokens = max((e.longest for e in encoded), default=1)
        self._machine = ModelRunner(
            network, loaded.dtype, encoded, components, settings, self._meter
        )
        self._random: ModelRunner | None = None
        self._featurizers = Featurizers(network.device, settings.files)
        self.opened = Opened(
            ModelFacts(
                layers=len(network.blocks),
                width=network.width,
                heads=network.heads,
                digest=loaded.digest,
                dtype=loaded.dtype,
                device=_device_name(network.device),
                path=self._machine.path.name,
                components=self._machine.facts,
                tokens=tokens,
                commit=loaded.commit,
                unused=loaded.unused,
            ),
            encoded,
        )

    def do(self, task: Task, tensors: Mapping[str, bytes] = MappingProxyType({})) -> list[Event]:
        """The events of `task`. `tensors`: what was fit that it needs, by digest.

        Screening, attribution: one `Screened` or `Attributed` for each block, or one `Failed` of
        the whole task. A fit: for each seed one `Fitted` or one `Failed`. Else, for each
        intervention, one `Measured` for each block; or, for one that fails, for the blocks before,
        and one `Failed`.
        """
        with self._meter.phase("other"):
            if task.kind == "screen":
                return self._by_block(task, self._screened)
            if task.kind == "attribute":
                return self._by_block(task, self._attributed)
            if task.kind == "fit":
                return [
                    event for part in self._by_machine(task) for event in self._fit(*part, tensors)
                ]
            self._featurizers.take(
                tensors, [i.fit for i in task.interventions if i.fit is not None]
            )
            return [event for part in self._by_machine(task) for event in self._measure(*part)]

    def usage(self) -> Usage:
        """What it has used since it was last asked: of its opening, at first."""
        return self._meter.take(memory_in_use())

    def _by_machine(self, task: Task) -> Iterator[tuple[ModelRunner, Task]]:
        """The parts of a task for the model, and for the one with re-initialised weights; a group
        for each."""
        for is_random in (False, True):
            interventions = tuple(
                i for i in task.interventions if (i.control == "random_model") == is_random
            )
            seeds = tuple(s for s in task.seeds if s.intervention in interventions)
            if interventions:
                machine = self._random_machine() if is_random else self._machine
                yield machine, replace(task, interventions=interventions, seeds=seeds)

    def _random_machine(self) -> ModelRunner:
        """Made when it is first asked for: it takes as much memory as the model."""
        if self._random is None:
            with self._meter.phase("load"):
                loaded = self._loaded.reinitialised()
                network, _ = loaded.open(self._raw)
            encoded = tuple(self._pairs.values())
            self._random = ModelRunner(
                network, loaded.dtype, encoded, self._components, self._settings, self._meter
            )
        return self._random

    def _fit(self, machine: ModelRunner, task: Task, tensors: Mapping[str, bytes]) -> list[Event]:
        began = time.perf_counter()
        pairs = [self._pairs[index] for block in task.blocks for index in block.pairs]
        targets = targets_of(task.interventions, pairs, self._pairs.values())
        with self._meter.phase("fit"):
            found = fit_seeds(machine.trainer, task.seeds, task.steps, pairs, targets, tensors)
        seconds = (time.perf_counter() - began) / len(task.seeds)
        events: list[Event] = []
        for seed in task.seeds:
            fit = found[seed.key]
            if isinstance(fit, FitFault):
                events.append(self._failed(task, seed.key, Fault(0, fit.error)))
            else:
                events.append(self._fitted(task, seed, fit, seconds))
        return events

    def _fitted(self, task: Task, seed: Seed, fit: FitOutcome, seconds: float) -> Fitted:
        first, last = task.steps
        points = [p for p in fit.points if p[0] > first]
        contents = (
            (fit.content, fit.state) if last else (fit.content,)
        )  # what takes no steps is not gone on with
        tensors = {hashlib.sha256(content).hexdigest(): content for content in contents}
        digest, *state = tensors
        return Fitted(
            task=task.id,
            intervention=seed.intervention.id,
            seed=seed.seed,
            first=first,
            last=last,
            steps=tuple(step for step, _, _ in points),
            losses=tuple(loss for _, loss, _ in points),
            iias=tuple(iia for _, _, iia in points),
            validation_iia=fit.validation_iia,
            validation_loss=_finite(fit.validation_loss),
            validation_n=fit.validation_n,
            found=dict(fit.found),
            fit=digest,
            state=state[0] if state else None,
            stopped=fit.stopped,
            seconds=seconds,
            device=self.opened.facts.device,
            worker=self._worker,
            attempt=task.attempt,
            tensors=tensors,
        )

    def _by_block(self, task: Task, do: Callable[[Task, Block], Event]) -> list[Event]:
        events: list[Event] = []
        for place, block in enumerate(task.blocks):
            try:
                events.append(do(task, block))
            except Exception as error:  # noqa: BLE001  without interventions there is only the task to blame, and it must be told
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
        said: dict[tuple[int, str], tuple[Prediction, ...]] = dict.fromkeys(runs, ())
        for token in range(self._tokens):
            if token:
                runs = {run: row.after(said[run][-1].id) for run, row in runs.items()}
            for (index, name), decision in zip(
                runs, self._machine.captures.decisions(list(runs.values())), strict=True
            ):
                said[index, name] += (
                    checked(decision, f"pair {index}, {name}, without intervention"),
                )
        outputs = {name: tuple(_output(said[p.index, name]) for p in pairs) for name in names}
        return Screened(
            task=task.id,
            split=block.split,
            block=block.index,
            pairs=block.pairs,
            base=outputs.pop("base", ()),
            sources=outputs,
            near_ties=sum(map(self._is_near, said.values())),
            seconds=time.perf_counter() - began,
            device=self.opened.facts.device,
            worker=self._worker,
            attempt=task.attempt,
            scores=self._machine.scoring.scores(
                pairs, [said[p.index, "base"][0].heard for p in pairs]
            ),
        )

    def _attributed(self, task: Task, block: Block) -> Attributed:
        began = time.perf_counter()
        with self._meter.phase("fit"):
            effects = self._machine.attributor.effects(
                [self._pairs[i] for i in block.pairs], task.units
            )
        return Attributed(
            task=task.id,
            split=block.split,
            block=block.index,
            pairs=block.pairs,
            effects=effects,
            seconds=time.perf_counter() - began,
            device=self.opened.facts.device,
            worker=self._worker,
            attempt=task.attempt,
        )

    def _measure(self, machine: ModelRunner, task: Task) -> list[Event]:
        began = time.perf_counter()
        assert len(set(task.keys)) == len(task.keys), "a task names an intervention once"
        items, faults = self._items(machine, task)
        outcome = machine.measurer.measure(items, self._tokens)
        faults.update(outcome.faults)
        per_row = (time.perf_counter() - began) / max(len(items), 1)
        by_key: dict[tuple[str, int], list[tuple[Prediction, ...]]] = {}
        for item in items:
            if item.intervention not in faults:
                by_key.setdefault((item.intervention, item.block), []).append(
                    outcome.decisions[item]
                )
        events: list[Event] = []
        for intervention in task.interventions:
            key = intervention.key
            if key in faults and len(task.blocks) > 1:
                events += self._block_by_block(machine, task, intervention)
                continue
            if key in faults:
                events.append(self._failed(task, key, faults[key]))
                continue
            for place, block in enumerate(task.blocks):
                events.append(
                    self._measured(task, intervention, block, by_key.get((key, place), []), per_row)
                )
        return events

    def _block_by_block(
        self, machine: ModelRunner, task: Task, intervention: Intervention
    ) -> list[Event]:
        """An intervention that fails somewhere: its blocks up to there, so that what fails far
        ahead costs no block before."""
        events: list[Event] = []
        for block in task.blocks:
            events += self._measure(
                machine, replace(task, interventions=(intervention,), blocks=(block,))
            )
            if isinstance(events[-1], Failed):
                break
        return events

    def _items(self, machine: ModelRunner, task: Task) -> tuple[list[RowRequest], dict[str, Fault]]:
        """The rows to run, pair by pair (interventions on a pair share its captures), and what
        cannot be run at all."""
        items: list[RowRequest] = []
        faults: dict[str, Fault] = {}
        for place, block in enumerate(task.blocks):
            for index in block.pairs:
                for intervention in task.interventions:
                    key = intervention.key
                    if key in faults:
                        continue
                    try:
                        row = self._row(machine, self._pairs[index], intervention)
                    except Exception as error:  # noqa: BLE001  as in measure.py: told of its intervention, sparing the others
                        faults[key] = Fault(place, error)
                    else:
                        items.append(RowRequest(key, place, index, row))
        return [item for item in items if item.intervention not in faults], faults

    def _row(self, machine: ModelRunner, pair: Encoded, intervention: Intervention) -> Row:
        lender = None
        if intervention.control == "random_source":
            lender = other_source(pair, tuple(self._pairs.values()), intervention)
        others = ablation_sources(pair, tuple(self._pairs.values()), intervention)
        return build_row(pair, intervention, machine.taps, self._featurizers, lender, others)

    def _measured(
        self,
        task: Task,
        intervention: Intervention,
        block: Block,
        decisions: Sequence[tuple[Prediction, ...]],
        per_row: float,
    ) -> Measured:
        pairs = [self._pairs[index] for index in block.pairs]
        return Measured(
            task=task.id,
            intervention=intervention.key,
            split=block.split,
            block=block.index,
            pairs=block.pairs,
            outputs=tuple(_output(d) for d in decisions),
            near_ties=sum(self._is_near(d) for d in decisions),
            rows=sum(map(len, decisions)),
            seconds=per_row * len(decisions),
            device=self.opened.facts.device,
            worker=self._worker,
            attempt=task.attempt,
            scores=self._machine.scoring.scores(
                pairs, [d[0].heard for d in decisions], intervention
            ),
        )

    def _failed(self, task: Task, key: str | None, fault: Fault) -> Failed:
        return Failed(
            task=task.id,
            intervention=key,
            block=task.blocks[fault.block].index,
            error_type=type(fault.error).__name__,
            message=str(fault.error),
            traceback="".join(traceback.format_exception(fault.error)),
            node=self._node,
            worker=self._worker,
            attempt=task.attempt,
            group=task.keys,
            split=task.blocks[0].split,
            blocks=tuple(b.index for b in task.blocks),
        )

    def _is_near(self, decisions: Sequence[Prediction]) -> bool:
        """Whether one of the tokens of an output is a near-tie, or was one where it was first
        decided."""
        return any(d.again or d.gap < self._machine.tolerance for d in decisions)


def _output(decisions: Sequence[Prediction]) -> Ids:
    return tuple(d.id for d in decisions)


def _finite(loss: float | None) -> float | None:
    """None for a loss that is infinite: a model may rule an answer out, and a journal holds
    numbers."""
    return None if loss is None or not math.isfinite(loss) else loss


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
