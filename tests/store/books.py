"""What the tests of the store write down: pairs, events, and a small deterministic brain that turns
events into notes.

The brain stands for any search: the same events in the same order give the same notes.
"""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raysearch import Input, Pair
from raysearch.core.events import Encoded, Event, Failed, Lost, Measured, Screened
from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import (
    Blocked,
    Counted,
    Decided,
    Estimated,
    PairScreened,
    Proposed,
    Record,
    SetCount,
)
from raysearch.storage.folder import Folder
from raysearch.storage.parquet import from_parquet
from raysearch.store.ledger import RunLedger
from raysearch.store.pairs_table import write_pairs
from raysearch.store.run_folder import RunFolder

TABLES = ("hypotheses", "observations", "sets", "verdicts", "failures")
HYPOTHESES = tuple(
    Hypothesis(variable, Intervention((Unit(Site(layer, "residual", "last"), Subspace()),)))
    for layer in range(4)
    for variable in ("country", "relation")
)
PAIRS = tuple(
    Pair(
        index=i,
        base=Input(f"The capital of land {i} is", {"country": (15, 20)}, {"country": i}),
        sources={"source": Input(f"The capital of land {i + 1} is", {"country": (15, 20)})},
        answers={"base": f" A{i}", "source": f" A{i + 1}"},
        counterfactual={"country": f" A{i + 1}", "relation": f" A{i}"},
        split="holdout" if i == 3 else "test",
        set="near" if i % 2 else None,
    )
    for i in range(4)
)
ENCODED = tuple(
    Encoded(
        index=i,
        base=(1, 2, 3 + i),
        sources={"source": (1, 2, 4 + i)},
        base_positions={"country": (1, 2), "last": (2,)},
        source_positions={"source": {"country": (1,), "last": (2,)}},
        answers={"base": (7 + i,), "source": (8 + i,)},
        counterfactual={"country": (8 + i,), "relation": (7 + i,)},
    )
    for i in range(4)
)


def new_run(store: Path | Folder, **more: Any) -> RunFolder:
    """A run with its pairs, as a driver leaves it before the first event. `more`: of what
    `RunFolder.create` takes."""
    usual = {
        "name": "capitals",
        "job_hash": "0123456789abcdef",
        "job_digest": "89abcdef",
        "job_text": "model: {path: planted}\ntest: {use: sequential, threshold: 0.8, false_accept: 0.05}\n",
        "evidence_version": 1,
    }
    run = RunFolder.create(store, **{**usual, **more})
    write_pairs(run.folder, PAIRS, ENCODED)
    return run


def script(seed: int, blocks: int = 5) -> list[list[Event]]:
    """Batches of events: screening, then blocks in a random order with repeats, losses and
    failures, then the holdout."""
    rng = random.Random(seed)
    events: list[Event] = [
        Measured(
            1,
            i.id,
            "test",
            block,
            (block, block + 1),
            ((rng.randrange(9),), ()),
            0,
            2,
            0.5,
            "cpu",
            "w0",
            0,
        )
        for i in dict.fromkeys(h.intervention for h in HYPOTHESES)
        for block in range(blocks)
    ]
    events += [rng.choice(events) for _ in range(6)]
    events += [
        Lost(3, "worker", "w1", "gone", ("a1", "b2"), "test", (0, 1)),
        failure(HYPOTHESES[0].intervention.id),
        failure(None),
    ]
    rng.shuffle(events)
    events += [
        Measured(9, h.intervention.id, "holdout", 0, (3,), ((1,),), 1, 1, 0.1, "cpu", "w1", 0)
        for h in HYPOTHESES[::2]
    ]
    batches: list[list[Event]] = [[screened()]]
    while events:
        size = rng.randrange(1, 5)
        batches.append(events[:size])
        events = events[size:]
    return batches


def screened() -> Screened:
    return Screened(
        0, "test", 0, (0, 1), ((1,), (2, 3)), {"source": ((4,), (5,))}, 1, 0.25, "cpu", "w0", 0
    )


def screened_pairs(unchanged: int | None = None) -> Blocked:
    """The first block: all pairs are change pairs, but for `unchanged`."""
    return Blocked(
        tuple(
            PairScreened(i, (i,), {"source": (i, 1)}, i != unchanged, pair.split, i)
            for i, pair in enumerate(PAIRS)
        )
    )


def failure(intervention: str | None) -> Failed:
    what = ("RuntimeError", "boom\n2", "Traceback …", "node", "w1", 2)
    return Failed(4, intervention, 1, *what, ("a1", "b2"), "test", (0, 1))


class Brain:
    """Accepts even layers, rejects odd ones, after three blocks each; estimates what it accepted."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, int]] = set()
        self._blocks: Counter[str] = Counter()

    def tell(self, events: Sequence[Event]) -> list[Record]:
        return [note for event in events for note in self._on(event)]

    def _on(self, event: Event) -> list[Record]:
        if isinstance(event, Screened):
            return [
                screened_pairs(unchanged=2),
                *(Proposed(h, "exhaustive", 0) for h in HYPOTHESES),
            ]
        if not isinstance(event, Measured) or event.key in self._seen:
            return []
        self._seen.add(event.key)
        if event.split == "holdout":
            return [
                Estimated(h, 1, 1)
                for h in self._of(event)
                if h.intervention.units[0].site.layer % 2 == 0
            ]
        if self._blocks[event.intervention] == 3:
            return []
        self._blocks[event.intervention] += 1
        notes: list[Record] = [Counted(event, 0)]
        if self._blocks[event.intervention] == 3:
            notes += [decided(h) for h in self._of(event)]
        return notes

    def _of(self, event: Measured) -> list[Hypothesis]:
        return [h for h in HYPOTHESES if h.intervention.id == event.intervention]


def decided(h: Hypothesis) -> Decided:
    layer = h.intervention.units[0].site.layer
    verdict, matches = ("reject", 1) if layer % 2 else ("accept", 11 - layer)
    sets = (SetCount("near", 5, min(matches, 4), 0.0, 1.0),)
    return Decided(h, verdict, 12, matches, 0.1, 0.9, 0, 0, 2, None, 3.5, "sampler", sets=sets)  # type: ignore[arg-type]


def go_on(ledger: RunLedger, brain: Brain, batches: Sequence[Sequence[Event]]) -> None:
    """What a driver does with events: down in the books, then told, then noted."""
    for batch in batches:
        ledger.write_events(batch)
        ledger.write_records(brain.tell(batch))


def replay(ledger: RunLedger, brain: Brain) -> int:
    """What a driver does when it resumes; how many events there were."""
    count = 0
    for batch in ledger.replay():
        ledger.write_records(brain.tell(batch))
        count += len(batch)
    return count


def tables(run: RunFolder) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, in the order of their parts."""
    return {
        name: [
            row
            for part in run.tables.at(name).names()
            for row in from_parquet(run.tables.at(name).read(part)).to_pylist()
        ]
        for name in TABLES
    }
