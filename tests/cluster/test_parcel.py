"""Parcels: a task and its events cross to another process whole."""

from raysearch.cluster.fake_pool import faked_fit
from raysearch.cluster.parcel import pack_events, pack_task, unpack_events, unpack_task
from raysearch.search.events import Block, Fitted, Seed, Task
from tests.cluster.contract import at


def test_a_task_and_its_tensors_come_out_as_they_went_in() -> None:
    interventions = at(0), at(3, "first")
    named = {i.key for i in interventions}
    task = Task(7, "measure", interventions, (Block("test", 2, (4, 5)),), attempt=1)
    there, tensors = unpack_task(pack_task(task, {"digest": b"\x00\xff"}))
    assert there == task
    assert set(there.keys) == named
    assert tensors == {"digest": b"\x00\xff"}


def test_what_was_fit_travels_with_its_event() -> None:
    event = faked_fit(Task(1, "fit", (at(0),), (), seeds=(Seed(at(0), 3),), steps=(0, 10)), Seed(at(0), 3), 0.5)
    (back,) = unpack_events(pack_events([event]))
    assert isinstance(back, Fitted)
    assert back == event
    assert back.tensors == event.tensors != {}
