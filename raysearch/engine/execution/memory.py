"""Keeping within memory: how much may be kept, how much is in use, and halving what did not fit.

Invariants: work that does not fit is split, never refused, unless it is a single item; a size that
did not fit is not tried again.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from raysearch.engine.execution.usage import Memory

SHARE = 0.5
"""Of the memory that is free once the model is loaded, so much may hold captures, where the job
does not say how much."""
MOST_ON_CPU = 2 * 2**30
"""Bytes; on a CPU the memory is everybody's, and a run is soon made again."""

CGROUP = Path("/sys/fs/cgroup")
"""Where a container is told what it may use (version 2; elsewhere the machine's figures stand)."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class RowLimit:
    """At most so many rows in a forward pass. It falls when memory runs out, and stays there."""

    rows: int


def capture_bytes(device: torch.device) -> int:
    """How much may be kept on `device`, by what is free there now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(SHARE * free)
    return min(MOST_ON_CPU, int(SHARE * psutil.virtual_memory().available))


def room_on_host(cgroup: Path = CGROUP) -> int:
    """Bytes that may be kept for good in the memory of this machine, or of the container where that
    is less, by what is free now."""
    return int(SHARE * min(psutil.virtual_memory().available, _left_in(cgroup)))


def memory_in_use() -> Memory:
    """Of this process and its GPUs, now. Shares are those by which workers are killed: Ray does so
    at 95 % of a machine's memory."""
    # Asking a GPU that nobody uses yet would take half a GiB of it.
    used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if used else ()
    free = [torch.cuda.mem_get_info(device) for device in devices]
    return Memory(
        process=psutil.Process().memory_info().rss,
        gpu=sum(torch.cuda.memory_reserved(device) for device in devices),
        host=_share_of_host(),
        device=max((1 - left / total for left, total in free), default=0.0),
    )


def _share_of_host(cgroup: Path = CGROUP) -> float:
    """Of the memory of this machine, or of the container where that is less; what files are cached
    in, and would be given back, is free."""
    machine = psutil.virtual_memory()
    limit = _number(cgroup / "memory.max")
    if limit is None or limit >= machine.total:
        return 1 - machine.available / machine.total
    return max(_used_in(cgroup), 0) / limit


def _left_in(cgroup: Path) -> int:
    """What a container may still use, in bytes; as much as there can be, where it has no limit."""
    limit = _number(cgroup / "memory.max")
    return sys.maxsize if limit is None else max(limit - _used_in(cgroup), 0)


def _used_in(cgroup: Path) -> int:
    stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    return int((cgroup / "memory.current").read_text()) - int(stat.get("inactive_file", 0))


def _number(file: Path) -> int | None:
    """What a file of the kernel says; None where there is no such file, or no limit ("max")."""
    text = file.read_text().strip() if file.is_file() else ""
    return int(text) if text.isdigit() else None


def halving(
    items: Sequence[Item], do: Callable[[Sequence[Item]], Result], limit: RowLimit
) -> Iterator[Result]:
    """What `do` makes of `items`, or, where that takes more memory than there is, of each half, and
    so on.

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
