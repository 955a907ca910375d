"""Describes what a pool requests from a cluster, and computes how many replicas fit on a node.
Pure.

Invariants: room is computed node by node from a node's total resources: what others use becomes
free again, and a replica waits for it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

GIB = 2**30
DEADLINE_SECONDS = 600.0
"""Default time limit: tasks take a second to some tens of seconds, so one of ten minutes hangs."""


@dataclass(frozen=True, slots=True)
class Node:
    """A living node: its total resources, by Ray's names, and its labels.

    `draining`: it will be preempted or removed soon, so nothing new starts there.
    """

    id: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    draining: bool = False


@dataclass(frozen=True, slots=True)
class PoolShape:
    """The number of replicas of a pool, and what each requests.

    `replicas`: a number, or "auto" for as many as currently fit. `max_replicas`: up to how many
    "auto" requests from a cluster that can grow (None: it uses only existing nodes). `cpus`,
    `gpus`, `custom` (resources by name) and `labels` (Ray's label selector of nodes) are for each
    replica; `bytes`: its memory on a CPU. `or_cpu`: a replica uses the CPU when torch cannot use
    its GPU. `start_seconds`: how long the pool may be without a ready replica, and a replica may
    load. `deadline_seconds`: the longest that a task may take.
    """

    replicas: int | Literal["auto"]
    cpus: int = 1
    gpus: float = 0.0
    start_seconds: float = 600.0
    deadline_seconds: float = DEADLINE_SECONDS
    max_replicas: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    custom: Mapping[str, float] = field(default_factory=dict)
    bytes: int = 0
    or_cpu: bool = False

    @property
    def each(self) -> Mapping[str, float]:
        """The resources of one replica, by Ray's names."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {}), **self.custom}

    def __str__(self) -> str:
        where = ", ".join(f"{key}={value}" for key, value in self.labels.items())
        return amounts(self.each) + (f" on nodes labelled {where}" if where else "")


def room_on(node: Node, shape: PoolShape) -> int:
    """Returns how many replicas fit on an otherwise empty `node`."""
    if not all(_matches(node.labels.get(key), wanted) for key, wanted in shape.labels.items()):
        return 0
    # Adds 1e-5, so that 1 / 0.1 of a GPU counts as ten despite rounding.
    room = [
        int(node.resources.get(name, 0.0) / amount + 1e-5) if amount else inf
        for name, amount in shape.each.items()
    ]
    if shape.bytes and not shape.gpus and "memory" in node.resources:
        room.append(int(node.resources["memory"] // shape.bytes))
    return int(min(room))


def room_in(nodes: Iterable[Node], shape: PoolShape) -> int:
    """Returns how many replicas fit on all `nodes`."""
    return sum(room_on(node, shape) for node in nodes)


def first_replicas(nodes: Iterable[Node], shape: PoolShape) -> int:
    """Returns how many replicas to start with: at least one, which waits for room."""
    if shape.replicas != "auto":
        return shape.replicas
    room = max(1, room_in(nodes, shape))
    return room if shape.max_replicas is None else min(room, shape.max_replicas)


def bytes_on_cpu(model: int) -> int:
    """Returns the memory of a replica on a CPU for a model whose files have `model` bytes.

    Twice the files, and 3 GiB for cached activations (2 GiB) and libraries.
    """
    return 2 * model + 3 * GIB


def amounts(of: Mapping[str, float]) -> str:
    """Formats resources by name: "4 CPUs and 0.5 GPU"."""
    return " and ".join(
        f"{n:g} {name}{'s' * (name in ('CPU', 'GPU') and not 0 < n <= 1)}" for name, n in of.items()
    )


def _matches(label: str | None, selector: str) -> bool:
    """Says whether a label satisfies Ray's selector: "H100", "!H100", "in(H100,A100)",
    "!in(H100)"."""
    negative, wanted = selector.startswith("!"), selector.removeprefix("!")
    values = (
        wanted[3:-1].split(",") if wanted.startswith("in(") and wanted.endswith(")") else [wanted]
    )
    return (label in [v.strip() for v in values]) != negative
