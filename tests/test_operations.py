"""Ablations of a job's units: what each puts in, what a verdict on it means, and what is refused."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from raysearch import load_intervention
from raysearch.core.events import Encoded
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.build import _drawn_order, ablation_sources, build_row
from raysearch.engine.patching.operations import Collect
from raysearch.engine.patching.oracle import collect
from raysearch.engine.patching.rows import Patch, Row
from raysearch.errors import JobError, PairsError
from raysearch.job import Job
from raysearch.runner.resolution.resolve import resolve
from tests.cli.conftest import ROOT, Shell
from tests.engine.worlds import encoded_pairs, logits_of, shared_world
from tests.test_check_run import everything

SITE = Site(1, "residual", "last")
POINT = Point(1, "residual")
PAIRS = encoded_pairs(0, 60)


def _read(given: Any, token: int, *patches: Patch) -> torch.Tensor:
    world = shared_world("llama")
    (seen,) = collect(
        world.network, world.taps, Row(given, (*patches, Patch(POINT, (token,), kind=Collect())))
    )
    return seen[0]


@pytest.mark.parametrize("coordinates", [None, (3, 30, 4)])
@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_an_ablation_puts_in_what_its_name_says(
    kind: str, coordinates: tuple[int, ...] | None
) -> None:
    world, pair = shared_world("llama"), PAIRS[0]
    intervention = Intervention((Unit(SITE, Subspace(coordinates=coordinates)),), kind)
    others = ablation_sources(pair, PAIRS, intervention)
    assert len(others) == {"zero": 0, "mean": 32, "resample": 1}[kind]
    row = build_row(pair, intervention, world.taps, others=others)
    own = _read(pair.base, len(pair.base) - 1)
    lent = [_read(o.base, len(o.base) - 1) for o in others]
    expected, chosen = own.clone(), list(coordinates or range(len(own)))
    expected[chosen] = (torch.stack(lent).mean(0) if lent else torch.zeros_like(own))[chosen]
    found = _read(pair.base, len(pair.base) - 1, *row.patches)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found, own, atol=1e-2)
    for path in world.fast():
        assert torch.allclose(logits_of(path, [row])[0], world.oracle(row), atol=1e-4)


def test_a_mean_is_of_the_same_inputs_for_all_pairs_and_a_resample_of_one_drawn_for_each() -> None:
    unit = (Unit(SITE),)
    mean, resample = Intervention(unit, "mean"), Intervention(unit, "resample")
    assert len({tuple(o.base for o in ablation_sources(p, PAIRS, mean)) for p in PAIRS}) == 1
    drawn = [ablation_sources(p, PAIRS, resample)[0] for p in PAIRS]
    assert drawn == [ablation_sources(p, PAIRS, resample)[0] for p in PAIRS]
    assert len({o.index for o in drawn}) > 20
    assert all(o.base != p.base for o, p in zip(drawn, PAIRS, strict=True))


def test_a_row_of_an_ablation_looks_at_few_of_many_pairs() -> None:
    """Of 10^15 pairs, which no shuffle of all would fit, a few are drawn; the order is that of a
    shuffle."""

    class Counted(Sequence[Encoded]):
        looked = 0

        def __len__(self) -> int:
            return 10**15

        def __getitem__(self, at: Any) -> Any:
            self.looked += 1
            return PAIRS[at % len(PAIRS)]

    pairs = Counted()
    resample = Intervention((Unit(Site(0, "residual", "last")),), kind="resample")
    ablation_sources(PAIRS[0], pairs, resample)
    assert 1 <= pairs.looked <= 100
    assert sorted(_drawn_order("s", 50)) == list(range(50))
    assert list(_drawn_order("s", 50)) == random.Random("s").sample(range(50), 50)


def test_an_ablation_that_has_no_other_input_says_so() -> None:
    resample = Intervention((Unit(SITE),), "resample")
    with pytest.raises(PairsError, match=r"no other base has as many tokens at last \(1\), as"):
        ablation_sources(PAIRS[0], PAIRS[:1], resample)
    with pytest.raises(JobError, match="takes from other inputs, and there are none here"):
        build_row(PAIRS[0], resample, shared_world("llama").taps)


def test_an_ablation_needs_no_source() -> None:
    alone = Encoded(7, PAIRS[0].base, {}, PAIRS[0].base_positions, {}, {}, {})
    row = build_row(alone, Intervention((Unit(SITE),), "zero"), shared_world("llama").taps)
    assert row.patches[0].sources == ()


# ---- in a job


def _job(units: list[list[dict[str, Any]]], **more: Any) -> dict[str, Any]:
    return {
        "name": "ablations",
        "model": {"path": str(ROOT / "jobs/planted/model")},
        "problem": {"use": "raysearch.problems.add_three"},
        "pairs": {"test": 80, "fit": 16, "holdout": 32},
        "space": {"variables": ["total"], "units": units},
        "test": {"threshold": 0.6},
        **more,
    }


def _unit(operation: str, layer: int = 3, position: str = "last", **more: Any) -> dict[str, Any]:
    return {"layer": layer, "position": position, "operation": operation, **more}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A search for what is necessary: the residual after the last layer at the last token, and at
    the first, which nothing reads any more."""
    folder = tmp_path_factory.mktemp("ablations")
    kinds = ("interchange", "zero", "mean", "resample")
    units = [[_unit(kind, position=at)] for kind in kinds for at in ("last", "a")]
    job = _job(units, controls=["placebo", "random_model"])
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    shell = Shell(folder)
    done = shell("run", "job.yaml", "--pool", "local", "--tracking-uri", "none", "-q")
    assert done.returncode == 0, done.stderr
    return folder, shell.json("results", "latest", "-o", "json")


def test_what_is_necessary_is_accepted_and_what_nothing_reads_is_rejected(
    found: tuple[Path, list[dict[str, Any]]],
) -> None:
    _, rows = found
    by_unit = {}
    for row in rows:
        (unit,) = json.loads(row["units"])
        by_unit[unit.get("operation", "interchange"), row["position"]] = row
    assert len(by_unit) == 8
    for (kind, position), row in by_unit.items():
        assert row["verdict"] == ("accept" if position == "last" else "reject"), (kind, position)
        assert row["claim"] == ("sampler" if kind == "interchange" else "necessity, sampler")
        if position == "last":
            assert (row["self_swap_iia"] is None) == (kind != "interchange")
            assert row["holdout_iia"] > 0.6
        else:
            assert row["matches"] == 0


def test_the_check_of_a_third_party_agrees(found: tuple[Path, list[dict[str, Any]]]) -> None:
    (run,) = (found[0] / "runs").iterdir()
    assert everything(run) == ([], [])


def test_an_export_and_the_page_say_that_it_is_an_ablation(
    found: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, rows = found
    (row,) = [r for r in rows if '"operation":"mean"' in r["units"] and r["verdict"] == "accept"]
    shell = Shell(folder)
    done = shell("export", "latest", row["hypothesis"], "--to", "saved")
    assert done.returncode == 0, done.stderr
    assert load_intervention(folder / "saved").intervention.kind == "mean"
    readme = (folder / "saved" / "README.md").read_text()
    assert "A mean ablation of this unit." in readme
    assert "the output was no longer the answer of the base" in readme
    assert "necessary for the base's answer" in readme
    assert "interchange" not in readme
    done = shell("export", "latest", row["hypothesis"], "--to", "theirs", "--format", "pyvene")
    assert done.returncode == 2
    assert "mean" in done.stderr
    page = next((folder / "runs").glob("*/report.html")).read_text()
    assert "mean ablation" in page
    assert "no longer the base" in page


def test_a_run_of_ablations_resumes(found: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = found
    shell = Shell(folder)
    done = shell("resume", "latest", "--pool", "local", "-q")
    assert done.returncode == 0, done.stderr
    assert shell.json("results", "latest", "-o", "json") == rows


@pytest.mark.parametrize(
    ("unit", "says"),
    [
        (_unit("add"), "space.units.0.0.operation: "),
        (_unit("zero", source="source"), "space.units.0.0: source says where a source's activation "
                                         "is taken from"),
        (_unit("mean", source_site={"layer": 1}), "source_site says where"),
        (_unit("zero", subspace={"das": [4]}), "space.units.0.0.subspace: not yet supported"),
    ],
)  # fmt: skip
def test_what_an_ablation_cannot_have_is_refused(unit: dict[str, Any], says: str) -> None:
    with pytest.raises(JobError) as refused:
        Job.parse(_job([[unit]]))
    assert says in str(refused.value)


def test_units_changed_at_once_have_one_operation_and_no_set_comes_twice() -> None:
    both = [_unit("zero"), _unit("mean", layer=2)]
    with pytest.raises(JobError, match=r"space.units: set 0 has several operations"):
        Job.parse(_job([both]))
    with pytest.raises(JobError, match="sets 0 and 1 are the same"):
        Job.parse(_job([[_unit("zero")], [_unit("zero")]]))
    assert len(Job.parse(_job([[_unit("zero")], [_unit("mean")]])).space.units) == 2


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"test": {"score": "probability"}}, "test.score: probability is of a counterfactual"),
        ({"test": {"keep_threshold": 0.5}, "pairs": {"kinds": "both"}}, "test.keep_threshold is"),
        ({"propose": {"use": "attribution"}}, "attribution estimates interchanges"),
    ],
)
def test_a_job_of_ablations_refuses_what_needs_a_source(more: dict[str, Any], says: str) -> None:
    job = Job.parse(_job([[_unit("zero")]], **more))
    with pytest.raises(JobError) as refused:
        resolve(job)
    assert says in str(refused.value)


def test_a_job_without_an_operation_is_written_as_it_was_before() -> None:
    job = Job.parse(_job([[{"layer": 3, "position": "last"}]]))
    assert "operation" not in job.to_yaml()
    assert job.digest() == Job.parse(_job([[_unit("interchange")]])).digest()
