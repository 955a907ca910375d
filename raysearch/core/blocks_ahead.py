"""Cuts the blocks that fit into a task or into a step of a lease: the search makes tasks by it, and
a replica goes through a lease by it.

Invariants: it is at least one block, however large that is.
"""

from raysearch.core.events import Block


def blocks_ahead(blocks: tuple[Block, ...], interventions: int, rows: int) -> tuple[Block, ...]:
    """Returns the first block and as many of the next as fit into `rows`, pairs x interventions."""
    count, used = 1, len(blocks[0].pairs) * interventions
    while count < len(blocks) and used + len(blocks[count].pairs) * interventions <= rows:
        used += len(blocks[count].pairs) * interventions
        count += 1
    return blocks[:count]
