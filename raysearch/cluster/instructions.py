"""Instructions that the slots give to a pool, such as to start or end a replica."""

from dataclasses import dataclass

from raysearch.core.events import Lost


@dataclass(frozen=True, slots=True)
class SlotInstruction:
    """An instruction on the actor of one slot."""

    slot: int


@dataclass(frozen=True, slots=True)
class StartReplica(SlotInstruction):
    """Start the actor of a slot on a node not in `avoid`, and ask for its location."""

    name: str
    avoid: tuple[str, ...]


class LoadReplica(SlotInstruction):
    """Let the actor of a slot load its replica."""

    __slots__ = ()


class ProbeReplica(SlotInstruction):
    """Ask the actor of a slot whether it is alive."""

    __slots__ = ()


class StopReplica(SlotInstruction):
    """Kill the actor of a slot and ignore its pending calls."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A line for the user."""

    text: str


Instruction = StartReplica | LoadReplica | ProbeReplica | StopReplica | Message | Lost
"""Tells a pool what to do; a Lost is passed on to the search."""
