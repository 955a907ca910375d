"""Counts what a run's rows were spent on: `python scripts/rows_by_kind.py RUN`.

A row is one pair under one intervention. Screening, which runs inputs without any, is apart.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq


def rows_by_kind(run: Path) -> Counter[str]:
    """Returns the number of rows by kind: tests, job controls, and what the holdout took."""
    controls = {
        row["intervention"]: row["control"]
        for path in sorted((run / "tables" / "hypotheses").glob("*.parquet"))
        for row in pq.read_table(path, columns=["intervention", "control"]).to_pylist()
    }
    found: Counter[str] = Counter()
    for path in sorted((run / "journal").glob("*/*.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line)["entry"]
            if entry["type"] == "screened":
                found[f"screening: {entry['split']}"] += len(entry["pairs"])
            elif entry["type"] == "measured":
                name = entry["intervention"].partition("@")[0]
                own = controls.get(name, "no hypothesis: its control")
                found[f"{entry['split']}: {own or 'hypotheses'}"] += len(entry["pairs"])
    return found


if __name__ == "__main__":
    kinds = rows_by_kind(Path(sys.argv[1]))
    measured = sum(n for kind, n in kinds.items() if not kind.startswith("screening"))
    for kind, n in sorted(kinds.items()):
        share = "" if kind.startswith("screening") else f"  {n / measured:.1%}"
        sys.stdout.write(f"{kind:<42}{n:>9}{share}\n")
    sys.stdout.write(f"{'all rows under an intervention':<42}{measured:>9}\n")
