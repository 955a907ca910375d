"""Finds the pairs on which the runs of a store have tested hypotheses.

Who tests on the same pairs what an earlier run selected sees it look better than it is: the earlier
K does not count what the later run asks.

Invariants: other runs are read and never written; a pair counts as tested if it stands in a block
of test pairs, whether a hypothesis got as far or not.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raysearch.causal import Stimulus
from raysearch.errors import RaysearchError, StoreError, check_memory
from raysearch.storage.digests_json import read_checked
from raysearch.storage.folder import Folder
from raysearch.storage.parquet import from_parquet
from raysearch.store.job_file import read_job
from raysearch.store.pairs_table import FILE
from raysearch.store.run_folder import RunFolder, run_names

_COLUMNS = ("split", "block", "base_text", "base_tensor", "sources")
LEAST_SHARED = 0.05
"""Share of the pairs below which an earlier run is no reason to warn, as where two draws of a large
domain meet by chance: were all that it chose matches on these, an IIA of .8 would look .01
higher."""
Contents = tuple[str, ...]
"""Contents of base and sources of a pair."""


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A run with the test pairs in its blocks.

    Args:
        k: its K; 0 if it is open-ended, None if it does not say.
        false_accept: its chance of any false accept, by its job.
    """

    name: str
    model_digest: str | None
    k: int | None
    false_accept: float | None
    pairs: frozenset[Contents]


def earlier_runs(store: Folder, say: Callable[[str], None]) -> list[EarlierRun]:
    """Returns the runs of a store that have test pairs in blocks; says which cannot be read."""
    found = []
    for name in run_names(store):
        try:
            run = RunFolder.open(store.at(name))
            pairs = _tested(run.folder)
            test = read_job(run.folder).get("test") or {}
        except RaysearchError as e:
            say(f"whether run {name} tested on the same pairs is not known: {e}")
            continue
        if pairs:
            info = run.info
            level = test.get("false_accept")
            found.append(EarlierRun(name, info.model_digest, info.k, level, pairs))
    return found


def _tested(run: Folder) -> frozenset[Contents]:
    if not run.exists(FILE):
        return frozenset()
    try:
        table = from_parquet(read_checked(run, FILE), _COLUMNS)
    except (pa.ArrowException, OSError) as e:
        check_memory(e, f"reading {run.shown(FILE)}")
        raise StoreError(f"{run.shown(FILE)}: cannot be read ({e!r:.200})") from e
    used = table.filter((pc.field("split") == "test") & pc.field("block").is_valid())
    return frozenset(_contents(row) for row in used.to_pylist())


def _contents(row: Mapping[str, Any]) -> Contents:
    """Returns what `Pair.contents` is of the pair in a row."""
    sources = sorted((s["name"], _content(s["text"], s.get("tensor"))) for s in row["sources"])
    return (
        _content(row["base_text"], row.get("base_tensor")),
        *(content for _, content in sources),
    )


def _content(text: str | None, tensor: Mapping[str, Any] | None) -> str:
    if tensor is None:
        return text or ""
    return Stimulus(tensor["dtype"], tuple(tensor["shape"]), tensor["data"]).digest


def used_before(
    runs: Collection[EarlierRun], model_digest: str, pairs: Collection[Contents]
) -> Mapping[str, Mapping[str, Any]]:
    """Returns, for each run on the same model that tested on LEAST_SHARED of `pairs` or more, on
    how many, and at which K and chance of a false accept.
    """
    mine = set(pairs)
    shared = {r.name: (r, len(mine & r.pairs)) for r in runs if r.model_digest == model_digest}
    return {
        name: {"pairs": n, "k": r.k, "false_accept": r.false_accept}
        for name, (r, n) in shared.items()
        if n and n >= LEAST_SHARED * len(mine)
    }


def used_words(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a line on the runs that tested on some of the same pairs."""
    runs = [
        f"{name} ({of['pairs']} pairs, {'K = ' + str(of['k']) if of['k'] else 'open-ended'}, "
        f"false accept {of['false_accept']})"
        for name, of in found.items()
    ]
    more = f" and {len(runs) - 3} more" * (len(runs) > 3)
    return (
        f"other runs of this store have tested on some of these test pairs: "
        f"{', '.join(runs[:3])}{more}; "
        "what was chosen by them looks better here than it is (pairs.fresh: true takes other pairs)"
    )
