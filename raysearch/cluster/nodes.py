"""The nodes of the Ray that this process is connected to, as the pool reckons with them."""

import ray
from ray._private.state import state  # no public face of Ray 2.52 to 2.60 tells which nodes drain

from raysearch.cluster.shape import Node


def nodes() -> list[Node]:
    """Those that live. Raises: what Ray raises where it is out of reach."""
    draining = state.get_draining_nodes()
    return [
        Node(n["NodeID"], n["Resources"], n.get("Labels") or {}, n["NodeID"] in draining)
        for n in ray.nodes()
        if n["Alive"]
    ]
