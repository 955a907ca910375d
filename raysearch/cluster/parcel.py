"""A task and what it needs, as bytes for an actor call, and its events back: pickled here, in C.

Ray would pickle them all the same, by cloudpickle, which calls Python for each object in them (to be able to send functions and classes
of a notebook): of a call's 1.0 ms of the driver that is 0.3 ms, and more for a task of many interventions. Invariants: what is unpacked
was packed by a process of the same Ray session, which could send it code in other ways too; nothing here comes from a file.
"""

import pickle
from collections.abc import Mapping, Sequence
from typing import NewType

from raysearch.search.events import Event, Task

Parcel = NewType("Parcel", bytes)


def pack_task(task: Task, tensors: Mapping[str, bytes]) -> Parcel:
    """A task, and what was fit that it needs, by digest."""
    return Parcel(pickle.dumps((task, dict(tensors)), pickle.HIGHEST_PROTOCOL))


def unpack_task(parcel: Parcel) -> tuple[Task, Mapping[str, bytes]]:
    """What `pack_task` packed."""
    task, tensors = pickle.loads(parcel)
    assert isinstance(task, Task)
    return task, tensors


def pack_events(events: Sequence[Event]) -> Parcel:
    """What came of a task."""
    return Parcel(pickle.dumps(list(events), pickle.HIGHEST_PROTOCOL))


def unpack_events(parcel: Parcel) -> list[Event]:
    """What `pack_events` packed."""
    events: list[Event] = pickle.loads(parcel)
    return events
