"""What a pool asks of a cluster: how many replicas, what each takes; and how many of them a node
has room for. Pure.

Invariants: room is reckoned node by node, of what a node has in all: what others use of it comes
free again, and a replica waits for it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

GIB = 2**30
DEADLINE_SECONDS = 600.0
"""A task is a second to a few tens of seconds; one that takes ten minutes hangs."""


@dataclass(frozen=True, slots=True)
class Node:
    """A living node of a cluster: what it has in all, by Ray's names of resources, and its labels.

    `draining`: it will go soon (it is preempted, or shrunk away): nothing new is begun there.
    """

    id: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    draining: bool = False


@dataclass(frozen=True, slots=True)
class PoolShape:
    """Of a pool. `replicas`: how many, or as many as the cluster has room for, as that changes.

    `most`: up to which "auto" asks a cluster that can grow for more (None: it takes the nodes that
    are there). `gpus`, `cpus`, `custom` (resources by name) and `labels` (of the node: Ray's label
    selector) are each replica's; `bytes`: memory of one on a CPU. `or_cpu`: a replica whose GPU
    torch cannot use takes the CPU. `start_seconds`: how long the pool may be without any replica
    that is ready, and how long one may load; `deadline_seconds`: what a task may take at most.
    """

    replicas: int | Literal["auto"]
    cpus: int = 1
    gpus: float = 0.0
    start_seconds: float = 600.0
    deadline_seconds: float = DEADLINE_SECONDS
    most: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    custom: Mapping[str, float] = field(default_factory=dict)
    bytes: int = 0
    or_cpu: bool = False

    @property
    def each(self) -> Mapping[str, float]:
        """What a replica takes, by Ray's names."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {}), **self.custom}

    def __str__(self) -> str:
        where = ", ".join(f"{key}={value}" for key, value in self.labels.items())
        return amounts(self.each) + (f" on nodes labelled {where}" if where else "")


def room_on(node: Node, shape: PoolShape) -> int:
    """How many replicas fit on `node`, nothing else being there."""
    if not all(_matches(node.labels.get(key), wanted) for key, wanted in shape.labels.items()):
        return 0
    # A hundredth of a thousandth more: 1 / 0.1 fractions of a GPU are ten, whatever floats say.
    room = [
        int(node.resources.get(name, 0.0) / amount + 1e-5) if amount else inf
        for name, amount in shape.each.items()
    ]
    if shape.bytes and not shape.gpus and "memory" in node.resources:
        room.append(int(node.resources["memory"] // shape.bytes))
    return int(min(room))


def room_in(nodes: Iterable[Node], shape: PoolShape) -> int:
    """How many replicas fit on `nodes` in all."""
    return sum(room_on(node, shape) for node in nodes)


def first_replicas(nodes: Iterable[Node], shape: PoolShape) -> int:
    """How many replicas are begun with: one at least, which waits for room."""
    if shape.replicas != "auto":
        return shape.replicas
    room = max(1, room_in(nodes, shape))
    return room if shape.most is None else min(room, shape.most)


def bytes_on_cpu(model: int) -> int:
    """The memory of a replica on a CPU, its model's files having `model` bytes.

    Twice its files and 3 GiB: weights, the activations that it keeps (2 GiB), the libraries.
    """
    return 2 * model + 3 * GIB


def amounts(of: Mapping[str, float]) -> str:
    """Resources by name, in words: "4 CPUs and 0.5 GPU"."""
    return " and ".join(
        f"{n:g} {name}{'s' * (name in ('CPU', 'GPU') and not 0 < n <= 1)}" for name, n in of.items()
    )


def _matches(label: str | None, selector: str) -> bool:
    """Whether a node's label meets a selector of Ray's: "H100", "!H100", "in(H100,A100)",
    "!in(H100)"."""
    negative, wanted = selector.startswith("!"), selector.removeprefix("!")
    values = (
        wanted[3:-1].split(",") if wanted.startswith("in(") and wanted.endswith(")") else [wanted]
    )
    return (label in [v.strip() for v in values]) != negative
