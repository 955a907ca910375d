"""Memory limits: how much may be cached, how much is in use, and halving of batches that do not
fit.

Invariants: work that does not fit is split, never refused, unless it is a single item; a size that
did not fit is not tried again.
"""

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from raysearch.core.runner_settings import MOST_ON_CPU
from raysearch.engine.execution.usage import Memory
from raysearch.errors import is_out_of_memory

SHARE = 0.5
"""Share of the memory free after loading that cached runs may take, if the job does not say how
much."""
CGROUP = Path("/sys/fs/cgroup")
"""Folder with a container's memory limit (cgroups version 2; otherwise the machine's memory
counts)."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class RowLimit:
    """Most rows in one forward pass. It falls when memory runs out, and does not rise again.

    `tokens`: most tokens that the rows of a wave compute together (0: as many as they have)."""

    rows: int
    tokens: int = 0

    def of_wave(self, tokens: int) -> int:
        """Returns most rows of a wave whose rows compute so many tokens each, at least 1."""
        return min(self.rows, max(1, self.tokens // tokens)) if self.tokens else self.rows


def capture_bytes(device: torch.device) -> int:
    """Returns the bytes that cached runs may take on `device`, by the memory that is free now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(SHARE * free)
    return min(MOST_ON_CPU, int(SHARE * psutil.virtual_memory().available))


def room_on_host(cgroup: Path = CGROUP) -> int:
    """Returns the bytes of main memory that may be held permanently, by what is free now on the
    machine or in its container."""
    return int(SHARE * min(psutil.virtual_memory().available, _left_in(cgroup)))


def memory_in_use() -> Memory:
    """Returns the memory of this process and its GPUs. Shares are those by which workers are
    killed: Ray does so at 95 % of a machine's memory."""
    # Querying an unused GPU would take half a GiB of its memory.
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
    """Returns the fraction of memory in use, of the container's limit if it has one. Page
    cache counts as free."""
    machine = psutil.virtual_memory()
    limit = _number(cgroup / "memory.max")
    if limit is None or limit >= machine.total:
        return 1 - machine.available / machine.total
    return max(_used_in(cgroup), 0) / limit


def _left_in(cgroup: Path) -> int:
    """Returns the bytes that a container may still use; the largest integer if it has no limit."""
    limit = _number(cgroup / "memory.max")
    return sys.maxsize if limit is None else max(limit - _used_in(cgroup), 0)


def _used_in(cgroup: Path) -> int:
    stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    return int((cgroup / "memory.current").read_text()) - int(stat.get("inactive_file", 0))


def _number(file: Path) -> int | None:
    """Returns the number in a kernel file; None if the file is missing or says "max"."""
    text = file.read_text().strip() if file.is_file() else ""
    return int(text) if text.isdigit() else None


def run_in_halves(
    items: Sequence[Item], do: Callable[[Sequence[Item]], Result], limit: RowLimit
) -> Iterator[Result]:
    """Yields `do(items)`, or the results for halves of `items`, and so on, while memory does not
    suffice.

    Raises: torch.OutOfMemoryError if a single item does not fit.
    """
    try:
        yield do(items)
        return
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or len(items) == 1:
            raise
    # Outside of the except clause, so that the error no longer refers to partial results.
    if torch.cuda.is_available():
        gc.collect()  # frees what only a cycle of references holds
        torch.cuda.empty_cache()
    half = len(items) // 2
    limit.rows = min(limit.rows, len(items) - half)
    yield from run_in_halves(items[:half], do, limit)
    yield from run_in_halves(items[half:], do, limit)
