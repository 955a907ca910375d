"""Makes the files to begin a search with: a job that runs, and the problem that it is about.

Invariants: what is made runs as it is; users' text is quoted for the language it lands in.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raysearch.causal import SPLITS, Split
from raysearch.errors import JobError
from raysearch.job.error_messages import WORDS
from raysearch.job.job import NAME
from raysearch.problems.pair_files import FEWEST, read_sample

STARTERS = Path(__file__).parent / "starters"
JOB = "job.yaml"
MODEL = "model"
"""The folder of the small model that comes with raysearch."""
TO_DECIDE = 64
"""Pairs of which none are held out: an interval from 16 of them would reach from .79 to 1."""
_PACKAGED = Path(__file__).parents[1] / "examples" / "planted" / "model"


@dataclass(frozen=True)
class PairsFacts:
    """The facts about a file of pairs that a job is made of.

    Args:
        path: the file or folder, as given.
        variables: those that pairs have counterfactuals of.
        positions: those that each input has.
        classes: whether the inputs are tensors.
        pairs: how many pairs may be used.
        wanted: how many test and holdout pairs a job of them asks for.
        given: how many pairs of each split the file then gives.
    """

    path: Path
    variables: tuple[str, ...]
    positions: tuple[str, ...]
    classes: bool
    pairs: int
    wanted: Mapping[Split, int]
    given: Mapping[Split, int]


def pairs_facts(path: Path) -> PairsFacts:
    """Reads a file of pairs. Raises: JobError and PairsError where it cannot be read."""
    pairs = read_sample(path, {"test": FEWEST}, seed=0).pairs
    inputs = [each for pair in pairs for each in (pair.base, *pair.sources.values())]
    first, *others = inputs
    positions = [p for p in first.positions if all(p in other.positions for other in others)]
    is_split = any(pair.split == "holdout" for pair in pairs)  # by the file itself
    spare = len(pairs) if is_split else max(len(pairs) - TO_DECIDE, 0)
    holdout = min(128, len(pairs) // 4, spare)
    wanted: dict[Split, int] = {"test": min(256, len(pairs) - holdout), "holdout": holdout}
    given = Counter(pair.split for pair in read_sample(path, wanted, seed=0).pairs)
    return PairsFacts(
        path,
        tuple(pairs[0].counterfactual),
        tuple(positions),
        first.stimulus is not None,
        len(pairs),
        {split: n if given[split] else 0 for split, n in wanted.items()},
        given,
    )


def job_name(folder: Path) -> str:
    """Returns a name for the job of a folder, by what the folder is called."""
    name = re.sub(r"[^\w.-]+", "-", folder.resolve().name, flags=re.ASCII)
    return name.lstrip("-._")[:80] or "search"


def starter_files(
    kind: str, folder: Path, name: str, model: str | None = None, pairs: PairsFacts | None = None
) -> dict[str, bytes]:
    """Returns the files of a starter, by their path below `folder`.

    Args:
        kind: a folder of `STARTERS`; "pairs" needs `pairs`.
        model: what the job's model.path is to be; None: the small model that comes with raysearch,
            which adds three digits.

    Raises:
        JobError: no job may have such a name.
    """
    if not re.match(NAME, name):
        raise JobError(f"--name: {WORDS['name']} (got {name!r:.80})")
    values: dict[str, object] = {"name": name, "model": MODEL if model is None else model}
    if kind == "pairs":
        assert pairs is not None, "a job is made of what the file holds"
        values |= _of_pairs(pairs, folder)
    files = {}
    for path in sorted((STARTERS / kind).iterdir()):
        filled = _filled(path.read_text(encoding="utf-8"), values)
        files[path.name.removesuffix(".j2")] = filled.encode()
    if model is None and kind != "network":
        files |= {f"{MODEL}/{path.name}": path.read_bytes() for path in sorted(_PACKAGED.iterdir())}
    return files


def _of_pairs(pairs: PairsFacts, folder: Path) -> Mapping[str, object]:
    place = os.path.relpath(pairs.path, folder)
    return {
        "pairs": place,
        "shown": repr(place)[1:-1],
        "classes": pairs.classes,
        "lines": pairs.pairs,
        "wanted": pairs.wanted,
        "given": {split: pairs.given.get(split, 0) for split in SPLITS},
        "variables": pairs.variables,
        "positions": (*pairs.positions, "last"),
    }


def _filled(template: str, values: Mapping[str, object]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return environment.from_string(template).render(values)
