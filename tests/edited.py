"""Runs that a test changes: run.json as another raysearch, or another machine, would have written
it, with its checksum; a journal whose driver did not come to its end."""

import json
from pathlib import Path

from raysearch.storage.digests_json import checksum


def edit_info(run: Path, **changes: object) -> None:
    """run.json says these values in place of its own, and carries the checksum of all that it says."""
    path = run / "run.json"
    plain = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(plain | {"sum": checksum(plain)}))


def unended(run: Path) -> None:
    """The journal of a run of one driver says no more that this came to its end, as after kill -9."""
    (file,) = run.glob("journal/*/*.jsonl")
    *before, last = file.read_bytes().splitlines(keepends=True)
    assert b'"type":"ended"' in last
    file.write_bytes(b"".join(before))
