"""Accepted hypotheses are held against controls, policies and other variables by the paired test, on
the same pairs."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Unit, canonical_json, to_plain
from raysearch.report.control_comparison import (
    COLUMNS,
    ControlComparison,
    compare,
    controls_by_place,
)
from raysearch.report.margins import Margins
from raysearch.report.results_table import read_results
from raysearch.report.run_results import compare_controls
from raysearch.stats.paired_test import PairedTest
from raysearch.storage.open_folder import open_folder
from raysearch.viewer.page import page
from tests.search.test_baseline_policies import near
from tests.search.worlds import BASE, World
from tests.test_check_run import run_of


@dataclass
class Controlled(World):
    """A world in which a control answers as the base does, but for those in `strong`."""

    strong: tuple[str, ...] = ()

    def output(self, intervention: Intervention, pair: int) -> tuple[int, ...]:
        if intervention.control is None or intervention.control in self.strong:
            return super().output(intervention, pair)
        return (BASE,)


def compared(world: World, folder: Path) -> dict[tuple[str, int], ControlComparison]:
    """By variable and layer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run = open_folder(run_of(world, folder))
    return {(b.row["variable"], b.row["layer"]): b for b in compare_controls(read_results(run))}


RATES = lambda layer: (0.2, 0.5, 0.97)[layer % 3]  # noqa: E731


def test_a_margin_over_a_control_is_the_paired_test_on_the_pairs_that_both_saw(
    tmp_path: Path,
) -> None:
    world = Controlled(2, layers=3, rates=RATES, controls=("placebo",), strong=("random_source",))
    b = compared(world, tmp_path / "run")["v", 2]
    found = next(
        h for h in world.space if h.variable == "v" and h.intervention.units[0].site.layer == 2
    )
    assert isinstance(found, Hypothesis)

    def match(intervention: Intervention, p: int) -> bool:
        return world.output(intervention, p) == world.pairs[p].counterfactual["v"]

    for split, name in (
        ("holdout", "random_source"),
        ("test", "placebo"),
    ):
        control = replace(found.intervention, control=name)
        counting = [i for i, e in world.pairs.items() if e.split == split and e.changes("v")]
        if split == "test":
            verdicts = {row["control"]: row["n"] for row in _rows(tmp_path / "run", "placebo")}
            counting = counting[: min(b.row["n"], verdicts["placebo"])]
        differences = [float(match(found.intervention, p)) - match(control, p) for p in counting]
        assert b.margins[name] == pytest.approx(PairedTest().interval(differences), abs=1e-9)
    assert b.as_well == ("random_source",)
    assert b.warning is not None
    assert "it is not shown to do better than a control: random_source" in b.warning


def _rows(folder: Path, control: str) -> list[dict[str, object]]:
    from raysearch.report.results_table import results

    (run,) = (p for p in folder.iterdir() if p.is_dir())
    return results(open_folder(run), controls=True, where=f"control = '{control}'").to_pylist()


@pytest.mark.parametrize("these_pairs", [False, True])
def test_what_is_better_than_all_has_no_warning(tmp_path: Path, these_pairs: bool) -> None:
    world = Controlled(
        2, layers=3, rates=RATES, controls=("placebo", "random_model"), these_pairs=these_pairs
    )
    found = compared(world, tmp_path / "run")
    assert found["v", 2].as_well == found["v", 2].alike == ()
    assert found["v", 2].margins["random_source"][0] > 0
    assert found["v", 2].warning is None or "what always gives" in found["v", 2].warning


@pytest.mark.parametrize(("at", "share"), [(0.9, "0.9"), (0.97, "1.0")])
def test_a_hypothesis_that_does_not_beat_the_best_policy_is_warned_about_and_said_on_the_page(
    at: float, share: str, tmp_path: Path
) -> None:
    """Of 0.97, the first pair that tells v and w apart comes after the accept: then nothing tells
    them apart either."""
    world = near(at)
    world.layers = 2
    found = compared(world, tmp_path / "run")["v", 1]
    assert found.beats_policy is False
    assert found.alike == ("w",)
    assert found.warning is not None
    assert f"what acts on w in its place, without any network, is right on {share}" in found.warning
    assert "its outputs are as often what w would make of them" in found.warning
    (run,) = (p for p in (tmp_path / "run").iterdir() if p.is_dir())
    text = page(open_folder(run))
    assert f"Without any network, on the same pairs: v: {share}" in text
    clear = compared(near(0.0), tmp_path / "run")["v", 1]
    assert clear.beats_policy is True
    assert clear.alike == ()
    assert clear.warning is None or "policy" not in clear.warning


def test_a_variable_that_is_a_policy_is_said_to_be_one_and_nothing_is_warned(
    tmp_path: Path,
) -> None:
    found = compared(near(1.0), tmp_path / "run")["v", 1]
    assert found.beats_policy is None
    assert "margin_low" in found.row
    assert found.row["baseline_iia"] == 1
    (run,) = (p for p in (tmp_path / "run").iterdir() if p.is_dir())
    said = "1.00 by what acts on w in its place, which is the variable itself on these pairs"
    assert said in page(open_folder(run))


def test_pairs_that_were_measured_after_the_verdict_for_another_hypothesis_do_not_count() -> None:
    world = World(3, layers=1)
    tested = [i for i, e in world.pairs.items() if e.changes("v")][:12]
    right = {p: world.pairs[p].counterfactual["v"] for p in tested}
    row = {"variable": "v", "intervention": "i", "fit": None, "control": None, "n": 8}
    row |= {"claim": "sampler", "population_size": None}
    control = {**row, "intervention": "c", "n": 12}
    seen = {
        ("test", "i", None): {p: right[p] if at < 8 else (99,) for at, p in enumerate(tested)},
        ("test", "c", None): dict.fromkeys(tested, (99,)),
    }
    margins = Margins(world.pairs, seen)
    assert margins.over(row, control) == PairedTest().interval([1.0] * 8)
    assert margins.over({**row, "n": 12}, control) == PairedTest().interval([1.0] * 8 + [0.0] * 4)


@pytest.mark.parametrize("operation", ["interchange", "zero"])
def test_a_network_of_random_weights_says_nothing_of_an_ablation(operation: str) -> None:
    """It seldom has the base's answer, ablated or not. A warning gives the interval of the figure
    that it names."""
    unit = {**to_plain(Unit(Site(1, "residual", "last")))}
    if operation != "interchange":
        unit["operation"] = operation
    row = {
        "variable": "v",
        "intervention": "i",
        "control": None,
        "n": 40,
        "claim": "sampler",
        "population_size": None,
        "units": canonical_json([unit]),
        "features": None,
        "fit": None,
        "iia": 0.95,
        "low": 0.7,
        "holdout_iia": 0.9,
        "holdout_low": 0.8,
        **dict.fromkeys(COLUMNS.values()),
    }
    controls = [
        {**row, "control": name, "iia": 0.94, "verdict": "accept"}
        for name in ("random_model", "placebo")
    ]
    found = compare(row, controls_by_place(controls), {})
    assert found.iia["random_model"] == 0.94
    wanted = ("placebo",) if operation == "zero" else ("random_model", "placebo")
    assert found.as_well == wanted
    assert found.warning is not None
    assert "IIA 0.90 (at least 0.80), but" in found.warning
