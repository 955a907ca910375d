"""Ports of loopback for the servers that tests start."""

import random
import socket

PORTS = range(20_100, 32_768)
"""Below those that Linux gives to whoever asks for any (from 32768 on), all that connects anywhere
among them, and above those of Ray's workers (to 19999): a port of theirs that was free a moment ago
is soon somebody's. The first hundred are for the first jobs of a Slurm
(raysearch/deploy/templates/slurm), which asks nobody."""


def free_ports(count: int) -> list[int]:
    """So many, all different, which nobody had a moment ago."""
    found: list[int] = []
    for port in random.SystemRandom().sample(
        PORTS, len(PORTS)
    ):  # tests beside this one draw others
        if len(found) == count:
            break
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue  # somebody has it
        found.append(port)
    assert len(found) == count, f"no {count} ports of {PORTS} are free"
    return found


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
