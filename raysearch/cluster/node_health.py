"""Tracks a cluster's nodes: which live, which are leaving, and which accept no (more) replicas.
Pure.

Invariants: a node whose replica reports another model or encoding than the first one is never used
again; a node on which START_ATTEMPTS replicas in a row did not start gets no further ones until
`retry`; failures are kept until a replica starts, so that an error can report them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from raysearch.cluster.pool_shape import Node, PoolShape, amounts, room_on
from raysearch.errors import ResourcesError

START_ATTEMPTS = 3
NO_REPLICAS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class FailedStart:
    """A replica that did not start: its node ("" if it was never placed), and the reason."""

    node: str
    reason: str


class NodeHealth:
    """Decides which nodes may hold replicas, and when waiting for one is hopeless."""

    def __init__(self, shape: PoolShape) -> None:
        self._shape = shape
        self._nodes: dict[str, Node] = {}
        self._capacity: dict[str, int] = {}
        self._mismatched: dict[str, str] = {}
        self._warm: set[str] = set()
        self._failed_in_a_row: Counter[str] = Counter()
        self._failures: list[FailedStart] = []

    def update(self, nodes: Iterable[Node]) -> None:
        """Replaces the list of living nodes."""
        self._nodes = {n.id: n for n in nodes}

    def is_gone(self, node: str) -> bool:
        return node not in self._nodes

    def is_draining(self, node: str) -> bool:
        return node in self._nodes and self._nodes[node].draining

    def is_leaving(self, node: str) -> bool:
        """Says whether a node is gone or draining; a task lost there is not held against its
        worker."""
        return self.is_gone(node) or self.is_draining(node)

    def is_warm(self, node: str) -> bool:
        """Says whether a replica has loaded there, so that the model's files are cached."""
        return node in self._warm

    def accepts(self, node: str, held: int) -> bool:
        """Says whether a node may hold `held` replicas."""
        return not self.is_leaving(node) and held <= self._capacity.get(node, held)

    def full(self, held: Mapping[str, int]) -> tuple[str, ...]:
        """Returns the nodes that may hold no more replicas than they have."""
        return tuple(
            sorted(
                n
                for n in self._capacity
                if n in self._nodes and not self.accepts(n, held.get(n, 0) + 1)
            )
        )

    def room(self, held: Mapping[str, int] = NO_REPLICAS) -> int:
        """Returns how many replicas the nodes can hold, including those they have (`held`)."""
        here = [(n.id, room_on(n, self._shape)) for n in self._nodes.values() if not n.draining]
        return sum(
            max(held.get(node, 0), min(fits, self._capacity.get(node, fits))) for node, fits in here
        )

    def on_started(self, node: str) -> None:
        """Records that a replica has loaded on `node`."""
        self._failed_in_a_row[node] = self._failed_in_a_row[""] = 0
        self._warm.add(node)

    def clear_failures(self) -> None:
        """Forgets failed starts, since some replica is ready."""
        self._failures = []

    def on_failed_start(self, node: str, reason: str, held: int) -> str | None:
        """Records a replica that did not start on `node` ("": never placed), which holds `held`
        others.

        Returns a message if that changes how the node is used. All replicas that were loading on a
        node when it died count as one failure.
        """
        dead = node != "" and self.is_gone(node)
        if not (dead and any(f.node == node for f in self._failures)):
            self._failures.append(FailedStart(node, reason))
        self._failed_in_a_row[node] += 1
        if dead or self._failed_in_a_row[node] < START_ATTEMPTS:
            return None
        if not node:
            return (
                f"replicas do not come up: {reason}; trying again"
                if self._failed_in_a_row[node] == START_ATTEMPTS
                else None
            )
        known, self._capacity[node] = self._capacity.get(node), held
        return (
            None
            if known == held
            else f"node {node[:8]} holds {_replicas_text(held)} from now on: {reason}"
        )

    def retry(self) -> bool:
        """Lets nodes with failed starts hold replicas again; returns whether there were any.

        Nodes with another model or encoding stay excluded.
        """
        held = len(self._capacity) > len(self._mismatched)
        self._capacity = dict.fromkeys(self._mismatched, 0)
        self._failed_in_a_row.clear()
        return held

    def exclude(self, node: str, why: str) -> None:
        """Excludes `node` from now on."""
        self._capacity[node] = 0
        self._mismatched[node] = why

    def check(self, waited: float) -> None:
        """Raises ResourcesError when no replica can come any more.

        Args: waited: seconds since a replica was last ready or loading.
        """
        if len(self._failures) >= START_ATTEMPTS:
            reasons = "; ".join(f.reason for f in self._failures[-START_ATTEMPTS:])
            raise ResourcesError(
                f"no replica started, {len(self._failures)} attempts: {reasons}. "
                "Is there memory for a replica (resources.replicas: 1 takes the least), and "
                "raysearch on every node?"
            )
        if self._mismatched and not self.room() and self._shape.max_replicas is None:
            raise ResourcesError(
                f"no replica is left, and no other node has room for one: "
                f"{'; '.join(self._mismatched.values())}; give every node the same "
                "files and package versions"
            )
        if waited > self._shape.start_seconds:
            raise ResourcesError(
                f"no replica was ready for {self._shape.start_seconds:.0f} s (resources.wait): "
                f"{self.describe()}; lower what resources asks, or add nodes"
                + "".join(f"; {f.reason}" for f in self._failures)
            )

    def describe(self) -> str:
        """Describes what each replica requests and what the cluster has."""
        names = {"CPU": 0, "GPU": 0, **self._shape.custom}
        there = {
            name: sum(n.resources.get(name, 0.0) for n in self._nodes.values()) for name in names
        }
        nodes = f"{len(self._nodes)} node{'s' * (len(self._nodes) != 1)}"
        return f"each asks {self._shape}, the cluster has {amounts(there)} on {nodes}"


def _replicas_text(replicas: int) -> str:
    return (
        "no replica" if replicas == 0 else f"no more than {replicas} replica{'s' * (replicas > 1)}"
    )
