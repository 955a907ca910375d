"""Lists the nodes of the Ray that this process is connected to."""

import ray
from ray._private.state import state  # no public API of Ray 2.52 to 2.60 lists draining nodes

from raysearch.cluster.pool_shape import Node


def nodes() -> list[Node]:
    """Returns the living nodes. Raises Ray's own errors when it cannot be reached."""
    draining = state.get_draining_nodes()
    return [
        Node(n["NodeID"], n["Resources"], n.get("Labels") or {}, n["NodeID"] in draining)
        for n in ray.nodes()
        if n["Alive"]
    ]
