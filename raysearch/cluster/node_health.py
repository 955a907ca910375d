"""What a pool knows of the nodes of its cluster: which there are, which go, which hold no (more)
replicas, and why. Pure.

Invariants: a node whose replica sees another model than the first one is never used again; one on
which START_ATTEMPTS replicas in a row did not start holds no more than it has until it is pardoned;
what happened is kept until a replica starts, so that it can be told.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from raysearch.cluster.shape import Node, PoolShape, amounts, room_on
from raysearch.errors import ResourcesError

START_ATTEMPTS = 3
NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class FailedStart:
    """A replica that did not start: on which node ("": it was never placed), and what was said."""

    node: str
    said: str


class NodeHealth:
    """The nodes and their standing."""

    def __init__(self, shape: PoolShape) -> None:
        self._shape = shape
        self._nodes: dict[str, Node] = {}
        self._most: dict[str, int] = {}
        self._foreign: dict[str, str] = {}
        self._warm: set[str] = set()
        self._row: Counter[str] = Counter()
        self._falls: list[FailedStart] = []

    def seen(self, nodes: Iterable[Node]) -> None:
        """Takes note of the nodes that live."""
        self._nodes = {n.id: n for n in nodes}

    def is_gone(self, node: str) -> bool:
        return node not in self._nodes

    def is_draining(self, node: str) -> bool:
        return node in self._nodes and self._nodes[node].draining

    def is_going(self, node: str) -> bool:
        """Whether a node is gone, or soon will be: what is lost there is lost to nobody's fault."""
        return self.is_gone(node) or self.is_draining(node)

    def is_warm(self, node: str) -> bool:
        """Whether a replica has loaded there: the model's files are in the node's caches."""
        return node in self._warm

    def takes(self, node: str, held: int) -> bool:
        """Whether a node may hold so many replicas."""
        return not self.is_going(node) and held <= self._most.get(node, held)

    def full(self, held: Mapping[str, int]) -> tuple[str, ...]:
        """The nodes that may hold no more than the replicas that they have."""
        return tuple(
            sorted(
                n for n in self._most if n in self._nodes and not self.takes(n, held.get(n, 0) + 1)
            )
        )

    def room(self, held: Mapping[str, int] = NONE) -> int:
        """How many replicas the nodes have room for, with those that they have (`held`)."""
        here = [(n.id, room_on(n, self._shape)) for n in self._nodes.values() if not n.draining]
        return sum(
            max(held.get(node, 0), min(fits, self._most.get(node, fits))) for node, fits in here
        )

    def started(self, node: str) -> None:
        """A replica has loaded on `node`."""
        self._row[node] = self._row[""] = 0
        self._warm.add(node)

    def well(self) -> None:
        """Some replica is ready."""
        self._falls = []

    def fell(self, node: str, said: str, held: int) -> str | None:
        """A replica did not start on `node` ("": on none yet), where `held` others are; what is to
        be said, if that changes something.

        A node takes all that load on it along when it dies: that is one fall.
        """
        dead = node != "" and self.is_gone(node)
        if not (dead and any(f.node == node for f in self._falls)):
            self._falls.append(FailedStart(node, said))
        self._row[node] += 1
        if dead or self._row[node] < START_ATTEMPTS:
            return None
        if not node:
            return (
                f"replicas do not come up: {said}; trying again"
                if self._row[node] == START_ATTEMPTS
                else None
            )
        known, self._most[node] = self._most.get(node), held
        return (
            None if known == held else f"node {node[:8]} holds {_count(held)} from now on: {said}"
        )

    def pardon(self) -> bool:
        """Whatever made replicas fall may be over: nodes hold what they can again, if any did not.
        What is foreign stays so."""
        held = len(self._most) > len(self._foreign)
        self._most = dict.fromkeys(self._foreign, 0)
        self._row.clear()
        return held

    def shun(self, node: str, why: str) -> None:
        """Takes `node` out of use."""
        self._most[node] = 0
        self._foreign[node] = why

    def check(self, waited: float) -> None:
        """Raises ResourcesError where nothing can come any more. Nothing has been ready or has
        loaded for `waited` seconds."""
        if len(self._falls) >= START_ATTEMPTS:
            told = "; ".join(f.said for f in self._falls[-START_ATTEMPTS:])
            raise ResourcesError(
                f"no replica started, {len(self._falls)} attempts: {told}. Is there memory for a "
                f"replica (resources.replicas: 1 takes "
                "the least), and raysearch on every node?"
            )
        if self._foreign and not self.room() and self._shape.most is None:
            raise ResourcesError(
                f"no replica is left, and no other node has room for one: "
                f"{'; '.join(self._foreign.values())}; give every node the same "
                "files and package versions"
            )
        if waited > self._shape.start_seconds:
            raise ResourcesError(
                f"no replica was ready for {self._shape.start_seconds:.0f} s (resources.wait): "
                f"{self.wants()}; "
                "lower what resources asks, or add nodes"
                + "".join(f"; {f.said}" for f in self._falls)
            )

    def wants(self) -> str:
        """What is asked, and what there is."""
        names = {"CPU": 0, "GPU": 0, **self._shape.custom}
        there = {
            name: sum(n.resources.get(name, 0.0) for n in self._nodes.values()) for name in names
        }
        nodes = f"{len(self._nodes)} node{'s' * (len(self._nodes) != 1)}"
        return f"each asks {self._shape}, the cluster has {amounts(there)} on {nodes}"


def _count(replicas: int) -> str:
    return (
        "no replica" if replicas == 0 else f"no more than {replicas} replica{'s' * (replicas > 1)}"
    )
