"""A finished run of as many hypotheses as one likes, written by the store's own writers.

    python -m tests.report.big_run STORE HYPOTHESES [HEADS]

Two variables at sites of 32 layers; of a hundred hypotheses one is accepted, one undecided, one
failed. HEADS: of each site, one for each head.
"""

import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from raysearch.core.events import Measured
from raysearch.core.evidence_version import EVIDENCE_VERSION
from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import (
    Counted,
    Decided,
    Estimated,
    Proposed,
    Record,
    Snapshot,
)
from raysearch.job import Job
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder
from tests.store.books import new_run, screened_pairs

JOB = Path(__file__).parents[2] / "jobs/quickstart.yaml"
LAYERS = 32
VARIABLES = ("country", "relation")
AT_ONCE = 1000


def big_run(store: Path, hypotheses: int, heads: int = 0, suffix: str = "") -> RunFolder:
    """Writes the run. `suffix`: of the names of its positions."""
    job = Job.load(JOB)
    run = new_run(
        store,
        name="big",
        job_hash="0" * 64,
        job_digest=job.digest(),
        job_text=job.to_yaml(),
        evidence_version=EVIDENCE_VERSION,
    )
    ledger = RunLedger(run)
    ledger.write_records([screened_pairs()])
    records = islice(_records(heads, suffix), hypotheses // len(VARIABLES))
    while batch := [r for some in islice(records, AT_ONCE) for r in some]:
        ledger.write_records(batch)
    accepted = hypotheses // 100
    ledger.snapshot(
        Snapshot("done", 0, accepted, hypotheses - 3 * accepted, accepted, accepted, 9, 0, 0, 0)
    )
    ledger.close("done")
    return run


def _records(heads: int, suffix: str) -> Iterator[list[Record]]:
    """What was found at each site, without end."""
    for i, (position, layer, head) in enumerate(_endless(heads)):
        component = "residual" if head is None else "head"
        intervention = Intervention(
            (Unit(Site(layer, component, f"p{position}{suffix}", head), Subspace()),)
        )
        seen = Measured(
            i, intervention.id, "test", 0, (0, 1, 2), ((1,),) * 3, 0, 3, 0.01, "cpu", f"w{i % 8}", 0
        )
        yield [Counted(seen, 0), *(r for v in range(2) for r in _verdict(i, v, intervention))]


def _verdict(i: int, variable: int, intervention: Intervention) -> Iterator[Record]:
    h = Hypothesis(VARIABLES[variable], intervention)
    kind = (2 * i + variable) % 100
    n, share = 8 + i % 5, (i % 7) / 20
    yield Proposed(h, "exhaustive", 0)
    verdict = {0: "accept", 1: "undecided", 2: "failed"}.get(kind, "reject")
    matches = n if verdict == "accept" else n // 3
    reason = "boom" if verdict == "failed" else None
    yield Decided(h, verdict, n, matches, share, share + 0.4, 0, 0, 2, None, 3.5, "sampler", reason)  # type: ignore[arg-type]
    if verdict == "accept":
        yield Estimated(h, 8, 7)


def _endless(heads: int) -> Iterator[tuple[int, int, int | None]]:
    for position in count():
        yield from (
            (position, layer, head)
            for layer in range(LAYERS)
            for head in (range(heads) if heads else [None])
        )


if __name__ == "__main__":
    print(big_run(Path(sys.argv[1]), *map(int, sys.argv[2:])).path)
