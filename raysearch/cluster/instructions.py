"""Instructions that the slots give to a pool, such as to start or end a replica."""

from dataclasses import dataclass

from raysearch.core.events import Lost


@dataclass(frozen=True, slots=True)
class StartReplica:
    """Start the actor of a slot on a node not in `avoid`, and ask for its location."""

    slot: int
    name: str
    avoid: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadReplica:
    """Let the actor of a slot load its replica."""

    slot: int


@dataclass(frozen=True, slots=True)
class ProbeReplica:
    """Ask the actor of a slot whether it is alive."""

    slot: int


@dataclass(frozen=True, slots=True)
class StopReplica:
    """Kill the actor of a slot and ignore its pending calls."""

    slot: int


@dataclass(frozen=True, slots=True)
class Message:
    """A line for the user."""

    text: str


Instruction = StartReplica | LoadReplica | ProbeReplica | StopReplica | Message | Lost
"""Tells a pool what to do; a Lost is passed on to the search."""
