"""Derives all that follows from the journal and the pairs of a run anew, without raysearch: verdicts,
intervals, levels, the selection, estimates on the holdout, controls and baselines.

Run `python docs/check_run.py RUN`: it prints each figure of the tables that differs from what
follows, and what it takes as it is told; it exits with 1 if anything differs. It needs numpy and
pyarrow; the files beside it that it imports are written from docs/explanation/statistics.md and
docs/reference/journal.md alone.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from checking import estimates, verdicts


def check(folder):  # what differs, and what is taken as told
    wrong, taken = verdicts.check(folder)
    return [*wrong, *estimates.check(folder)], taken


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "run.json").is_file():
        sys.exit("give the folder of one run: python docs/check_run.py RUN")
    differing, told = check(sys.argv[1])
    print(*(f"taken as told: {line}" for line in told), sep="\n", end="\n" * bool(told))
    sys.exit("\n".join(differing) or None)
