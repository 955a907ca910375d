"""One replica: a model, the encoded pairs, and `do`: a task in, its events out.

Invariants: outputs in float32 do not depend on how the work was grouped into tasks; an intervention of a task comes
back as one `Measured` for each block up to where it fails, and then as one `Failed`; `do` raises nothing that is an intervention's fault.
"""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from raysearch.causal import Pair
from raysearch.engine.asked import row_of, trials
from raysearch.engine.captures import Captures
from raysearch.engine.components import Taps
from raysearch.engine.decide import NEAR_TIE, Decision, checked
from raysearch.engine.measure import Fault, Item, Measurer
from raysearch.engine.memory import Limit, capture_bytes
from raysearch.engine.network import LoadedNetwork, NetworkSource
from raysearch.engine.paths import Path, Plain, fastest, trial_rows
from raysearch.search.events import Block, Event, Failed, Ids, Measured, ModelFacts, Opened, Screened, Task
from raysearch.search.hypothesis import Intervention


@dataclass(frozen=True)
class Settings:
    """How a replica works; none of it changes an output in float32.

    `rows`: at most so many rows in a forward pass. `capture_bytes`: of runs kept, on the model's device (None: by what is free there).
    `threads`: of torch on a CPU (None: as they are; it is a setting of the whole process). `plain`: never batch.
    """

    rows: int = 64
    capture_bytes: int | None = None
    threads: int | None = None
    plain: bool = False


class Replica:
    """A loaded model with its pairs encoded, checked against the oracle. `worker`, `node`: who it says it is in events.

    `components`: those that will be asked for; the fast path is checked on them.

    Raises: PairsError, PositionError for pairs that cannot be encoded; ModelError for a model whose blocks are not
    found, that is too short for the longest pair, or does not take them.
    """

    def __init__(
        self,
        loaded: LoadedNetwork,
        pairs: Sequence[Pair],
        positions: Sequence[str],
        variables: Sequence[str],
        worker: str,
        node: str = "",
        settings: Settings = Settings(),
        components: Sequence[str] = ("residual",),
    ) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        network, encode = loaded.open(pairs)
        self._worker, self._node = worker, node
        self._taps = Taps(network)
        facts = tuple(self._taps.facts(component) for component in components)
        encoded = encode(pairs, positions, variables)
        self._pairs = {e.index: e for e in encoded}
        self._tolerance = NEAR_TIE[loaded.dtype]
        plain, limit = Plain(network, self._taps), Limit(settings.rows)
        path: Path = plain
        self._captures = Captures(network, self._taps, Limit(1), self._tolerance, 0, plain=True)
        if not settings.plain:
            layers = len(network.blocks)
            rows = trial_rows(trials(encoded, self._taps, layers, components), layers)
            kept = capture_bytes(network.device) if settings.capture_bytes is None else settings.capture_bytes
            path, self._captures = fastest(network, self._taps, rows, limit, kept, self._tolerance)
        self._measurer = Measurer(path, plain, self._captures, limit, self._tolerance)
        self.opened = Opened(
            ModelFacts(
                layers=len(network.blocks),
                width=network.width,
                heads=network.heads,
                digest=loaded.digest,
                dtype=loaded.dtype,
                device=_device_name(network.device),
                path=path.name,
                components=facts,
            ),
            encoded,
        )

    @classmethod
    def open(
        cls,
        source: NetworkSource,
        pairs: Sequence[Pair],
        positions: Sequence[str],
        variables: Sequence[str],
        worker: str,
        device: str = "cpu",
        node: str = "",
        settings: Settings = Settings(),
        components: Sequence[str] = ("residual",),
    ) -> "Replica":
        """A replica of the model of `source`. Raises: ModelError where it cannot be loaded, and as above."""
        return cls(source.load(device), pairs, positions, variables, worker, node, settings, components)

    def do(self, task: Task) -> list[Event]:
        """The events of `task`.

        Screening: one `Screened` for each block, or one `Failed` of the whole task. Else, for each intervention, one
        `Measured` for each block; or, for one that fails, for the blocks before, and one `Failed`.
        """
        return self._screen(task) if task.kind == "screen" else self._measure(task)

    def _screen(self, task: Task) -> list[Event]:
        events: list[Event] = []
        for place, block in enumerate(task.blocks):
            try:
                events.append(self._screened(task, block))
            except Exception as error:  # noqa: BLE001  without interventions there is only the task to blame, and it must be told
                return [self._failed(task, None, Fault(place, error))]
        return events

    def _screened(self, task: Task, block: Block) -> Screened:
        began = time.perf_counter()
        pairs = [self._pairs[i] for i in block.pairs]
        inputs = [ids for p in pairs for ids in (p.base, *p.sources.values())]
        decided = dict(zip(inputs, self._captures.decisions(inputs), strict=True))
        for pair in pairs:
            for name, ids in {"base": pair.base, **pair.sources}.items():
                checked(decided[ids], f"pair {pair.index}, {name}, without intervention")
        sources = (
            {name: tuple(_output(decided[p.sources[name]]) for p in pairs) for name in pairs[0].sources}
            if pairs
            else {}
        )
        return Screened(
            task=task.id,
            split=block.split,
            block=block.index,
            pairs=block.pairs,
            base=tuple(_output(decided[p.base]) for p in pairs),
            sources=sources,
            near_ties=sum(self._is_near(decided[ids]) for ids in inputs),
            seconds=time.perf_counter() - began,
            device=self.opened.facts.device,
            worker=self._worker,
            attempt=task.attempt,
        )

    def _measure(self, task: Task) -> list[Event]:
        began = time.perf_counter()
        assert len({i.id for i in task.interventions}) == len(task.interventions), "a task names an intervention once"
        items, faults = self._items(task)
        outcome = self._measurer.measure(items)
        faults.update(outcome.faults)
        per_row = (time.perf_counter() - began) / max(len(items), 1)
        by_key: dict[tuple[str, int], list[Decision]] = {}
        for item in items:
            if item.intervention not in faults:
                by_key.setdefault((item.intervention, item.block), []).append(outcome.decisions[item])
        events: list[Event] = []
        for intervention in task.interventions:
            if intervention.id in faults and len(task.blocks) > 1:
                events += self._block_by_block(task, intervention)
                continue
            if intervention.id in faults:
                events.append(self._failed(task, intervention, faults[intervention.id]))
                continue
            for place, block in enumerate(task.blocks):
                events.append(
                    self._measured(task, intervention, block, by_key.get((intervention.id, place), []), per_row)
                )
        return events

    def _block_by_block(self, task: Task, intervention: Intervention) -> list[Event]:
        """An intervention that fails somewhere: its blocks up to there, so that what fails far ahead costs no block before."""
        events: list[Event] = []
        for block in task.blocks:
            events += self._measure(replace(task, interventions=(intervention,), blocks=(block,)))
            if isinstance(events[-1], Failed):
                break
        return events

    def _items(self, task: Task) -> tuple[list[Item], dict[str, Fault]]:
        """The rows to run, pair by pair (interventions on a pair share its captures), and what cannot be run at all."""
        items: list[Item] = []
        faults: dict[str, Fault] = {}
        for place, block in enumerate(task.blocks):
            for index in block.pairs:
                for intervention in task.interventions:
                    if intervention.id in faults:
                        continue
                    try:
                        row = row_of(self._pairs[index], intervention, self._taps)
                    except Exception as error:  # noqa: BLE001  as in measure.py: told of its intervention, sparing the others
                        faults[intervention.id] = Fault(place, error)
                    else:
                        items.append(Item(intervention.id, place, index, row))
        return [item for item in items if item.intervention not in faults], faults

    def _measured(
        self, task: Task, intervention: Intervention, block: Block, decisions: Sequence[Decision], per_row: float
    ) -> Measured:
        return Measured(
            task=task.id,
            intervention=intervention.id,
            split=block.split,
            block=block.index,
            pairs=block.pairs,
            outputs=tuple(_output(d) for d in decisions),
            near_ties=sum(self._is_near(d) for d in decisions),
            rows=len(decisions),
            seconds=per_row * len(decisions),
            device=self.opened.facts.device,
            worker=self._worker,
            attempt=task.attempt,
        )

    def _failed(self, task: Task, intervention: Intervention | None, fault: Fault) -> Failed:
        return Failed(
            task=task.id,
            intervention=intervention.id if intervention else None,
            block=task.blocks[fault.block].index,
            error_type=type(fault.error).__name__,
            message=str(fault.error),
            traceback="".join(traceback.format_exception(fault.error)),
            node=self._node,
            worker=self._worker,
            attempt=task.attempt,
            group=tuple(i.id for i in task.interventions),
            split=task.blocks[0].split,
            blocks=tuple(b.index for b in task.blocks),
        )

    def _is_near(self, decision: Decision) -> bool:
        return decision.gap < self._tolerance


def _output(decision: Decision) -> Ids:
    return (decision.id,)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
