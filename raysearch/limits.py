"""Every limit on what a file of a job may cost to read, so that one that never ends is refused.

Invariants: each is well above what real models and problems need; docs/reference/limits.md lists
them all (tests/test_limits.py).
"""

import stat
from pathlib import Path

JOB_BYTES = 10 * 10**6
"""Bytes of a job file."""
PROMPT_CHARACTERS = 10**6
"""Characters of a prompt that a chat template makes."""
TEMPLATE_SECONDS = 10.0
"""Seconds that a chat template may take for one prompt."""
TEMPLATE_BYTES = 2**30
"""Bytes of memory that a chat template may take beyond what the process has."""
UNPACKED_TIMES = 64
"""Size of a packed file of pairs (Parquet, Arrow, gzip, ...) in memory, as a multiple of its size
on disk."""
UNPACKED_BYTES = 256 * 2**20
"""Bytes that such a file may take in memory whatever its size on disk."""
LAYERS = 10**4
"""Layers, heads or experts of a model's configuration."""
LABELS = 10**6
"""Labels of a classifier's configuration; a name is made for each."""
QUERY_SECONDS = 60.0
"""Seconds that a condition of `results --where` may take."""
QUERY_BYTES = 2**30
"""Bytes of memory that such a query may take."""


class TooLargeError(ValueError):
    """A file is larger than its limit, or has no end."""


def read_at_most(path: Path, most: int) -> bytes:
    """Returns the content of a file or pipe.

    Raises:
        TooLargeError: it has more than `most` bytes.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
        if len(content) > most:
            endless = not stat.S_ISREG(path.stat().st_mode)
            what = "has no end" if endless else f"has {path.stat().st_size:,} bytes"
            raise TooLargeError(f"{what}, and at most {most:,} bytes are read")
    return content
