"""A run.json that a test changes as another raysearch, or another machine, would have written it:
with its checksum."""

import json
from pathlib import Path

from raysearch.storage.digests import checksum


def edit_info(run: Path, **changes: object) -> None:
    """run.json says these values in place of its own, and carries the checksum of all that it says."""
    path = run / "run.json"
    plain = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(plain | {"sum": checksum(plain)}))
