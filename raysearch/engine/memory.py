"""Keeping within memory: how much may be kept, and halving what did not fit.

Invariants: work that does not fit is split, never refused, unless it is a single item; a size that did not fit is not tried again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch

SHARE = 0.5
"""Of the memory that is free once the model is loaded, so much may hold captures, where the job does not say how much."""
MOST_ON_CPU = 2 * 2**30
"""Bytes; on a CPU the memory is everybody's, and a run is soon made again."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class Limit:
    """At most so many rows in a forward pass. It falls when memory runs out, and stays there."""

    rows: int


def capture_bytes(device: torch.device) -> int:
    """How much may be kept on `device`, by what is free there now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(SHARE * free)
    return min(MOST_ON_CPU, int(SHARE * psutil.virtual_memory().available))


def halving(items: Sequence[Item], do: Callable[[Sequence[Item]], Result], limit: Limit) -> Iterator[Result]:
    """What `do` makes of `items`, or, where that takes more memory than there is, of each half, and so on.

    Raises: torch.OutOfMemoryError where a single item does not fit.
    """
    try:
        yield do(items)
        return
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or len(items) == 1:
            raise
    # Out of the except clause, so that the error no longer holds what was half done.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(items) // 2
    limit.rows = min(limit.rows, len(items) - half)
    yield from halving(items[:half], do, limit)
    yield from halving(items[half:], do, limit)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: on a CPU, torch says so in a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
