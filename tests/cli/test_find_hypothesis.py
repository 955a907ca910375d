"""`export` picks a hypothesis by its place, and never guesses or writes over."""

from pathlib import Path
from typing import Any

import pytest

from raysearch.cli import flags
from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Proposed
from raysearch.errors import JobError
from raysearch.report.results_table import results
from raysearch.runner.stored_run.find_hypothesis import (
    SHORTEST_ID,
    find_hypothesis,
    id_length,
    short_ids,
)
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder
from tests.runner import finished
from tests.store.books import new_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A small search: two variables at two layers and positions, `total` found at the last token
    and `c` at its own."""
    return RunFolder.open(finished.make(tmp_path_factory.mktemp("picks")))


def picked(run: RunFolder, **place: Any) -> tuple[str, int, str]:
    row = find_hypothesis(run, None, place)
    return row["variable"], row["layer"], row["position"]


@pytest.mark.slow
def test_one_place_is_one_hypothesis_and_of_several_the_accepted_one(run: RunFolder) -> None:
    where = {"variable": "total", "layer": 3, "position": "c"}
    assert picked(run, **where) == ("total", 3, "c")
    assert picked(run, variable="total", layer=3) == ("total", 3, "last")
    assert picked(run, variable="c", component="residual") == ("c", 0, "c")


def test_the_beginning_of_an_id_is_enough_where_it_is_the_only_one(run: RunFolder) -> None:
    rows = results(run.folder).to_pylist()
    digits = short_ids(run.folder)
    for row in rows:
        assert (
            find_hypothesis(run, row["hypothesis"][:digits], {})["hypothesis"] == row["hypothesis"]
        )


@pytest.mark.parametrize(
    ("beginning", "place", "says"),
    [
        (None, {"variable": "total", "position": "c"}, "2 hypotheses are so"),
        (None, {"layer": 3, "variable": "nosuch"}, "no --variable 'nosuch'; it has c, total"),
        (None, {"layer": 11}, "^--layer 11: run .* has no --layer 11; it has 0, 3"),
        (None, {"head": 2}, "no --head 2; it has none"),
        ("zz", {}, "no hypothesis of run .* begins so; .* such as [0-9a-f]{16}"),
        ("", {}, "'': 8 hypotheses begin so"),
    ],
)
def test_what_is_none_or_several_is_one_line_with_the_candidates(
    run: RunFolder, beginning: str | None, place: dict[str, Any], says: str
) -> None:
    with pytest.raises(JobError, match=says) as e:
        find_hypothesis(run, beginning, place)
    assert "\n" not in str(e.value)


def test_a_line_on_several_names_each_by_short_id_place_and_verdict(run: RunFolder) -> None:
    with pytest.raises(JobError) as e:
        find_hypothesis(run, None, {"variable": "total", "position": "c"})
    row = next(r for r in results(run.folder, variable="total").to_pylist() if r["position"] == "c")
    place = f"total at {row['layer']}: residual at c, rejected"
    assert f"{row['hypothesis'][: short_ids(run.folder)]} {place}" in str(e.value)


def test_ids_are_as_long_as_tells_them_apart() -> None:
    assert id_length([]) == SHORTEST_ID
    assert id_length(["a" * 16]) == SHORTEST_ID
    assert id_length(["a" * 9 + "b" * 7, "a" * 16]) == 10


SPACES = {
    "full": Subspace(),
    "das 4": Subspace("das", features=4),
    "das 8": Subspace("das", features=8),
    "pca 8": Subspace("pca", features=8),
    "coordinates 0–3": Subspace(coordinates=(0, 1, 2, 3)),
}
SITES = (Site(2, "residual", "a"), Site(2, "residual", "last"), Site(2, "head", "last", 0))


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that proposed every subspace at three sites of one layer."""
    made = new_run(tmp_path_factory.mktemp("spaces"))
    ledger = RunLedger(made)
    units = [Unit(site, space) for site in SITES for space in SPACES.values()]
    ledger.write_records(
        [Proposed(Hypothesis("v", Intervention((unit,))), "exhaustive", 0) for unit in units]
    )
    ledger.close("done")
    return made


@pytest.mark.parametrize("subspace", [*SPACES, "pca", "coordinates 0-3"])
def test_a_subspace_tells_hypotheses_of_one_site_apart(spaces: RunFolder, subspace: str) -> None:
    row = find_hypothesis(
        spaces, None, {"component": "residual", "position": "a", "subspace": subspace}
    )
    assert (row["component"], row["position"]) == ("residual", "a")
    named = [name for name in SPACES if name.replace("–", "-").startswith(subspace[:11])]
    assert row["subspace"] in named or row["subspace"].replace("–", "-") == subspace


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"head": 0}, "apart by --subspace (coordinates 0–3, das 4, das 8, full, pca 8), or"),
        ({"head": 0, "subspace": "das"}, "apart by --subspace (das 4, das 8), or give an id"),
        ({"head": 0, "features": 8}, "apart by --subspace (das 8, pca 8), or give an id"),
        (
            {"subspace": "full"},
            "apart by --component (head, residual), --head (0), --position (a, last), or",
        ),
        ({"subspace": "das 5"}, "no --subspace 'das 5'; it has coordinates 0–3, das 4, das 8, "),
        ({"head": 0, "position": "a"}, "is at --head 0 and --position a; leave out one of these"),
        ({"features": 8, "head": 0, "subspace": "full"}, "--k 8, --head 0, --subspace full: no "),
        ({"features": 9}, "has no --k 9; it has 4, 8"),
    ],
)
def test_where_several_are_left_the_flags_that_tell_them_apart_are_named(
    spaces: RunFolder, place: dict[str, Any], says: str
) -> None:
    with pytest.raises(JobError) as e:
        find_hypothesis(spaces, None, place)
    assert says in str(e.value)
    assert "\n" not in str(e.value)


def exported(run: RunFolder, *words: str) -> tuple[int, str, str]:
    return finished.raysearch("export", run.place, *words)


def test_the_command_picks_and_writes_over_only_where_it_is_told(
    run: RunFolder, tmp_path: Path
) -> None:
    to = str(tmp_path / "it")
    place = ("--variable", "total", "--layer", "3", "--to", to)
    code, stdout, stderr = exported(run, *place)
    assert (code, stdout) == (0, f"{to}\n")
    assert f"raysearch.load_intervention('{to}')" in stderr
    code, stdout, stderr = exported(run, *place)
    assert (code, stdout, len(stderr.splitlines())) == (2, "", 1)
    assert "is not empty" in stderr
    assert "--force" in stderr
    assert exported(run, *place, "--subspace", "full", "--force")[0] == 0
    code, _, stderr = exported(run, *place, "--k", "8", "--force")
    assert (code, "has no --k 8; none of its subspaces has a size" in stderr) == (2, True)


def test_an_id_by_flag_is_the_argument_and_both_are_refused(run: RunFolder, tmp_path: Path) -> None:
    id = results(run.folder)["hypothesis"][0].as_py()
    assert exported(run, "--id", id[:7], "--to", str(tmp_path / "it"))[0] == 0
    with pytest.raises(Exception, match="give one"):
        exported(run, id, "--id", id, "--to", str(tmp_path / "it"))
    with pytest.raises(Exception, match="Missing argument 'HYPOTHESIS'"):
        exported(run, "--to", str(tmp_path / "it"))


def test_ids_are_completed(run: RunFolder) -> None:
    import click

    context = click.Context(click.Command("export"))
    context.params = {"run": run.place}
    ids = results(run.folder)["hypothesis"].to_pylist()
    assert flags.complete_hypotheses(context, ids[0][:5]) == [ids[0]]
