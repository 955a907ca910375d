"""Runs of a few hypotheses, written by the store's own writers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raysearch.core.events import Measured
from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Counted, Decided, Estimated, Proposed, Record, SetCount
from raysearch.storage.folder import Folder
from raysearch.store.ledger import RunLedger
from raysearch.store.pairs_table import write_pairs
from raysearch.store.run_folder import RunFolder
from tests.store.books import ENCODED, PAIRS, new_run

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=alert(1)><b>&'


def hypothesis(variable: str, layer: int, position: str = "last") -> Hypothesis:
    site = Site(layer, "residual", position)
    return Hypothesis(variable, Intervention((Unit(site, Subspace()),)))


def proposed(hypotheses: Sequence[Hypothesis]) -> list[Record]:
    return [Proposed(h, "exhaustive", 0) for h in hypotheses]


def measured(h: Hypothesis, matches: int = 1) -> Counted:
    """Three test pairs: on `matches` of them the source's answer is said, on the others 99."""
    said = tuple((8 + i,) if i < matches else (99,) for i in range(3))
    of = h.intervention.id
    return Counted(Measured(1, of, "test", 0, (0, 1, 2), said, 0, 3, 0.1, "cpu", "w0", 0), 0)


def decided(h: Hypothesis, verdict: str, matches: int = 1, **more: object) -> Decided:
    return Decided(h, verdict, 3, matches, 0.1, 0.9, 0, 0, 0, 0.25, 6.5, "sampler", **more)  # type: ignore[arg-type]


def closed(run: RunFolder, records: Sequence[Record]) -> RunFolder:
    ledger = RunLedger(run)
    ledger.write_records(list(records))
    ledger.close("done")
    return run


def few(store: Path | Folder, accepted: int = 1, **more: str) -> RunFolder:
    """A run of three hypotheses at three layers, the first `accepted` of which are accepted."""
    h = [hypothesis("country", layer) for layer in range(3)]
    records = proposed(h)
    for i, one in enumerate(h):
        verdict = "accept" if i < accepted else "reject"
        records += [measured(one, 3 if i < accepted else 1)]
        records += [decided(one, verdict, 3 if i < accepted else 1)]
        records += [Estimated(one, 8, 7)] * (i < accepted)
    return closed(new_run(store, **more), records)


def hostile(store: Path) -> RunFolder:
    """A run in which every text of a user's would like to be a script."""
    h = [hypothesis(HOSTILE, layer, HOSTILE) for layer in range(2)]
    keys = {"model": {"path": HOSTILE}, "problem": {"use": HOSTILE}, "test": {"threshold": 0.8}}
    run = RunFolder.create(
        store,
        name="hostile",
        job_hash="0123456789abcdef",
        job_digest="89abcdef",
        job_text=json.dumps(keys),
        evidence_version=1,
    )
    pairs = [
        replace(
            p,
            base=replace(p.base, text=HOSTILE, spans={HOSTILE: (2, 9)}, tokens={}),
            sources={HOSTILE: replace(p.sources["source"], text=HOSTILE, spans={HOSTILE: (2, 9)})},
            answers={"base": HOSTILE, HOSTILE: HOSTILE},
            set=HOSTILE,
            counterfactual={HOSTILE: HOSTILE},
        )
        for p in PAIRS
    ]
    encoded = [
        replace(
            e,
            sources={HOSTILE: e.sources["source"]},
            base_positions={HOSTILE: (1,)},
            source_positions={HOSTILE: {HOSTILE: (1,)}},
            answers={"base": (7 + e.index,), HOSTILE: (8 + e.index,)},
            counterfactual={HOSTILE: (8 + e.index,)},
        )
        for e in ENCODED
    ]
    write_pairs(run.folder, pairs, encoded)
    sets = (SetCount(HOSTILE, 3, 1, 0.1, 0.9), SetCount("other", 1, 1, 0.1, 1.0))
    return closed(
        run,
        [
            *proposed(h),
            measured(h[0]),
            decided(h[0], "accept", sets=sets),
            decided(h[1], "failed", reason=HOSTILE),
        ],
    )
