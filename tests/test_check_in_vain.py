"""docs/check_run.py derives the verdicts of a run whose continuation brought no further pair."""

from pathlib import Path

import pytest

from raysearch.search.continuations import NO_FURTHER_PAIR
from raysearch.search.criteria import DecisionRule
from tests.search.test_continuation import near
from tests.search.test_continuation_in_vain import FIXED, SolvesNothingFurther
from tests.test_check_continued import continued
from tests.test_check_run import everything, rows


@pytest.mark.parametrize("rule", [DecisionRule(), FIXED], ids=["open", "fixed"])
def test_verdicts_that_stayed_as_they_were_follow(rule: DecisionRule, tmp_path: Path) -> None:
    world = SolvesNothingFurther(
        0, layers=7, test=30, max_pairs=30, more=(60, 70), rates=near, rule=rule
    )
    run = continued(world, tmp_path)
    assert NO_FURTHER_PAIR in {row["reason"] for row in rows(run.path, "verdicts")}
    assert everything(run.path) == ([], [])
