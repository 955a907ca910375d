"""docs/checking/estimates.py derives of any run what follows its verdicts (estimates, controls, baselines),
and sees what was falsified."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysearch.search.criteria import DecisionRule
from tests.cli.conftest import QUICKSTART
from tests.once import Once
from tests.search.test_baseline_policies import near
from tests.search.test_holdout import world_of
from tests.search.worlds import World
from tests.test_check_run import WORLDS, everything, forge_journal, forge_table, rows, run_of

estimates: Any = importlib.import_module("checking.estimates")
check: Callable[[Path], list[str]] = estimates.check


def gated(at: float, fdr: bool = False) -> World:
    world = near(at)
    world.rule = DecisionRule(above_baselines=True, fdr=fdr)
    return world


MORE: dict[str, World] = {
    "controls": world_of(control=0.6, holdout=90),
    "all pairs": world_of(rule=DecisionRule(holdout_width=0), holdout=50, layers=2),
    "a policy": near(1.0),
    "gated": gated(0.0),
    "gated, held": gated(0.97),
    "gated, held, rate": gated(0.97, fdr=True),
    "both, accepted": World(
        6, layers=2, holdout=60, rates=lambda layer: 1.0, spares=lambda layer: 1.0,
        rule=DecisionRule("both", keep_threshold=0.3), test=240, max_pairs=240,
    ),
    "logit difference, accepted": World(
        10, layers=2, holdout=60, scores=("logit_difference",), fit=20, threshold=0.3,
        test=240, max_pairs=240, rule=DecisionRule(score="logit_difference"),
    ),
}  # fmt: skip
NONE_ACCEPTED = ("both", "logit difference", "gated, held", "gated, held, rate")


@pytest.mark.slow_unless(name=[*MORE, "fits", "rate, both", "rate, weights"])
@pytest.mark.parametrize("name", [*WORLDS, *MORE])
def test_all_that_follows_a_verdict_follows_from_the_journal(name: str, tmp_path: Path) -> None:
    run = run_of({**WORLDS, **MORE}[name], tmp_path)
    accepted = [row for row in rows(run, "verdicts") if row["verdict"] == "accept"]
    assert (name in NONE_ACCEPTED) == (not any(row["holdout_low"] for row in accepted))
    assert everything(run) == ([], [])


def test_it_follows_from_the_journal_of_the_quick_start(once: Once) -> None:
    assert check(once.searched(QUICKSTART)) == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(MORE["controls"], tmp_path_factory.mktemp("finished"))


@pytest.fixture
def forged(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "forged"))


COLUMNS = {
    "holdout_n": -8, "holdout_iia": 0.01, "holdout_low": 0.01, "holdout_high": -0.001, "holdout_distinct": -1,
    "random_source_iia": -0.1, "random_source_n": 8, "self_swap_iia": 0.1, "baseline_iia": 0.01,
}  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS)
def test_a_figure_that_was_changed_is_seen(forged: Path, column: str) -> None:
    def change(found: list[dict[str, Any]]) -> None:
        row = next(row for row in found if row["verdict"] == "accept")
        row[column] += COLUMNS[column]

    forge_table(forged, "verdicts", change)
    (line,) = check(forged)
    assert f": {column} is " in line


@pytest.mark.parametrize("column", ["margin_low", "margin_high"])
def test_a_margin_that_was_changed_is_seen(column: str, tmp_path: Path) -> None:
    run = run_of(MORE["gated"], tmp_path)

    def change(found: list[dict[str, Any]]) -> None:
        for row in found:
            row[column] = None if row[column] is None else row[column] - 0.01

    forge_table(run, "verdicts", change)
    assert check(run)
    assert all(f": {column} is " in line for line in check(run))


@pytest.mark.parametrize("field", ["outputs", "pairs"])
def test_a_journal_of_the_holdout_that_was_changed_is_seen(forged: Path, field: str) -> None:
    def change(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            entry = line["entry"]
            if entry["type"] == "measured" and entry["split"] == "holdout":
                entry[field] = (
                    [[77]] * len(entry[field]) if field == "outputs" else entry[field][::-1]
                )

    forge_journal(forged, change)
    assert check(forged)
