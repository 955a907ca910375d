"""`raysearch` as it is, but that its pool answers twice when it is asked to, and that its deadline
and its parts are short.

    python -m tests.cluster.chaos_driver FOLDER DEADLINE run JOB.yaml ...

Invariants: nothing of the product is replaced: the pool and the ledger are its own, with one thing
added at the seam; an order (FOLDER/*.order, JSON) is carried out once, and becomes *.done when the
repeat has been handed to the driver.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from raysearch.cli import main
from raysearch.cluster import ray_pool
from raysearch.cluster.ray_pool import PoolShape, RayPool
from raysearch.cluster.replica_spec import ReplicaSpec
from raysearch.core.events import Event, Fitted, Measured, Screened
from raysearch.runner.session import run_session
from raysearch.store.ledger import RunLedger

PART_SECONDS = 1.0
"""A search of half a minute is to close many parts, so that drivers die around them."""


class Stuttering(RayPool):
    """A pool that tells an event a second time, as it was or otherwise, at once or a turn later."""

    def __init__(
        self,
        orders: Path,
        deadline: float,
        work: ReplicaSpec,
        run: str,
        shape: PoolShape,
        *more: Any,
        **named: Any,
    ) -> None:
        super().__init__(work, run, replace(shape, deadline_seconds=deadline), *more, **named)
        self._orders = orders
        self._later: list[tuple[Path, Event]] = []

    def wait(self) -> list[Event]:
        events = super().wait()
        for order, event in self._later:
            events.append(event)
            order.rename(order.with_suffix(".done"))
        self._later = []
        for order in sorted(self._orders.glob("*.order")):
            wanted = json.loads(order.read_text())
            repeat = _repeat(events, wanted)
            if repeat is None:
                continue
            if wanted["later"]:
                order = order.rename(order.with_suffix(".later"))
                self._later.append((order, repeat))
            else:
                events.append(repeat)
                order.rename(order.with_suffix(".done"))
        return events


def _repeat(events: Sequence[Event], wanted: Mapping[str, bool]) -> Event | None:
    """The last answer among `events`, once more; None where there is none."""
    answers = [e for e in events if isinstance(e, Measured | Fitted | Screened)]
    if not answers:
        return None
    return _otherwise(answers[-1]) if wanted["otherwise"] else answers[-1]


def _otherwise(event: Measured | Fitted | Screened) -> Event:
    if isinstance(event, Measured):
        return replace(event, outputs=tuple((ids[0] + 1, *ids[1:]) for ids in event.outputs))
    if isinstance(event, Screened):
        return replace(event, base=tuple((ids[0] + 1, *ids[1:]) for ids in event.base))
    return replace(event, fit="0" * len(event.fit), tensors={})


if __name__ == "__main__":
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    ray_pool.RayPool = partial(Stuttering, folder, seconds)  # type: ignore[misc, assignment]
    run_session.RunLedger = partial(RunLedger, max_seconds=PART_SECONDS)  # type: ignore[misc, assignment]
    sys.argv = ["raysearch", *sys.argv[3:]]
    main.main()
