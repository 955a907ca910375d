"""Which pairs decide, and how many: fixed numbers of pairs, keep pairs, sets and disjoint splits,
from the job to the tables."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from raysearch.store.run_folder import find_run
from tests.cli.conftest import QUICKSTART, Shell

FEW = (
    "--set",
    "space.positions=[a, last]",
    "--set",
    "space.layers=[0, 3]",
    "--set",
    "pairs.holdout=0",
)
LOCAL = ("--pool", "local", "--tracking-uri", "none", "-q")


def _run(shell: Shell, *sets: str) -> Path:
    flags = [f for s in sets for f in ("--set", s)]
    done = shell("run", str(QUICKSTART), *FEW, *flags, *LOCAL)
    assert done.returncode == 0, done.stderr
    return find_run(shell.folder / "runs", "latest").path


def _rows(run: Path, table: str) -> list[dict[str, Any]]:
    return ds.dataset(run / "tables" / table).to_table().to_pylist()  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_fixed_number_of_pairs_is_measured_for_every_hypothesis(shell: Shell) -> None:
    run = _run(shell, "test.use=fixed", "test.pairs=40", "pairs.test=40")
    pairs = pq.read_table(run / "pairs.parquet").to_pylist()
    used = [p for p in pairs if p["split"] == "test" and p["block"] is not None]
    assert len(used) == 40
    variable = {h["hypothesis"]: h["variable"] for h in _rows(run, "hypotheses")}
    for verdict in _rows(run, "verdicts"):
        changing = [
            p
            for p in used
            for c in p["counterfactual"]
            if c["variable"] == variable[verdict["hypothesis"]] and c["ids"] != p["base_answer_ids"]
        ]
        assert verdict["n"] == len(changing)
        assert verdict["n"] + verdict["keep_n"] == 40


@pytest.mark.slow  # a whole job
def test_unfiltered_pairs_count_alike_and_a_plan_says_what_a_fixed_test_would_do(
    shell: Shell,
) -> None:
    run = _run(shell, "test.use=fixed", "test.pairs=40", "pairs.test=40", "pairs.kinds=unfiltered")
    assert {v["n"] for v in _rows(run, "verdicts")} == {40}
    plan = shell.json(
        "plan",
        str(QUICKSTART),
        *FEW,
        "--set",
        "test.use=fixed",
        "--set",
        "test.pairs=40",
        "-o",
        "json",
    )
    assert {round(p["pairs"], 6) for p in plan["powers"]} == {40}


def test_kinds_of_pairs_stand_in_the_table_of_sets(shell: Shell) -> None:
    _write_pairs(shell.folder / "pairs.jsonl")
    problem = f"problem={{pairs: {shell.folder / 'pairs.jsonl'}}}"
    run = _run(
        shell,
        problem,
        "test.use=fixed",
        "test.pairs=60",
        "space.variables=null",
        "space.positions=[a]",
    )
    verdicts = {v["hypothesis"]: v for v in _rows(run, "verdicts")}
    sets = _rows(run, "sets")
    assert {s["set"] for s in sets} == {"small", "large"}
    for hypothesis, verdict in verdicts.items():
        own = [s for s in sets if s["hypothesis"] == hypothesis]
        assert sum(s["n"] for s in own) == verdict["n"] > 0
        assert sum(s["matches"] for s in own) == verdict["matches"]


def test_no_value_of_a_disjoint_variable_is_in_test_and_holdout(shell: Shell) -> None:
    run = _run(
        shell, "pairs.disjoint=[c]", "pairs.holdout=16", "pairs.test=32", "test.max_pairs=32"
    )
    places: dict[str, set[str]] = {}
    for p in pq.read_table(run / "pairs.parquet").to_pylist():
        for text in (p["base_text"], *(s["text"] for s in p["sources"])):
            places.setdefault(text.rstrip("=").rpartition("+")[2], set()).add(p["split"])
    assert {len(v) for v in places.values()} == {1}
    assert {s for v in places.values() for s in v} == {"test", "holdout"}


def _write_pairs(path: Path) -> None:
    rng = random.Random(0)
    lines = []
    for _ in range(80):
        b, s = ([rng.randrange(10) for _ in range(3)] for _ in range(2))
        side = [{"text": "{}+{}+{}=".format(*v), "positions": {"a": [0, 1]}} for v in (b, s)]
        answers = {"base": str(sum(b)), "source": str(sum(s))}
        swapped = str(s[0] + b[1] + b[2])
        kind = "small" if s[0] < 5 else "large"
        line = {
            "base": side[0],
            "source": side[1],
            "answers": answers,
            "counterfactual": {"a": swapped},
            "set": kind,
        }
        lines.append(json.dumps({**line, "split": "test"}))
    path.write_text("\n".join(lines))
