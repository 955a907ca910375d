"""Words that lead on: what a plan refuses already, numbers that are those asked for, controls by
their place."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from raysearch.cli.main import cli
from raysearch.errors import JobError, PairsError
from raysearch.report.page import write_page
from raysearch.storage.open import open_folder
from tests.cli.conftest import QUICKSTART
from tests.cli.test_plan import planned
from tests.once import Once


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("space.subspaces=[{das: [65]}]", "das has 65 features, .* residual .* has 64 coordinates"),
        ("space.subspaces=[{das: [1, 64, 70]}]", "das has 70 features"),
        ("space.subspaces=[{pca: [100]}]", "pca has 100 features, .* give at most 64"),
    ],
)
def test_a_plan_refuses_more_features_than_the_vector_has(key: str, says: str) -> None:
    with pytest.raises(JobError, match=says):
        planned("text", key, "pairs.fit=32")


def test_a_plan_takes_as_many_features_as_the_vector_has() -> None:
    assert "fits" in planned("text", "space.subspaces=[{das: [64]}]", "pairs.fit=32")


def test_of_a_head_it_is_the_heads_own_width() -> None:
    with pytest.raises(JobError, match=r"das has 17 features, and the vector of head 0 .* has 16"):
        planned("text", "space.subspaces=[{das: [17]}]", "pairs.fit=32", "space.components=[head]")


def test_test_pairs_that_were_looked_at_are_told_from_those_wanted(tmp_path: Path) -> None:
    side = '{"text": "1+1+%d=", "positions": {}}'
    line = '{"base": %s, "source": %s, "answers": {"base": "3", "source": "4"}, "counterfactual": {"x": "3"}}'
    (tmp_path / "pairs.jsonl").write_text((line % (side % 1, side % 2) + "\n") * 300)
    (tmp_path / "job.yaml").write_text(
        f"name: j\nmodel: {{path: {QUICKSTART.parent}/planted/model}}\n"
        "problem: {pairs: pairs.jsonl}\npairs: {test: 100, fit: 0, holdout: 0}\n"
        "space: {layers: all, components: [residual], positions: [last]}\ntest: {max_pairs: 100}\n"
    )
    done = CliRunner().invoke(cli, ["plan", str(tmp_path / "job.yaml")])
    assert isinstance(done.exception, JobError | PairsError)
    assert "on all 300 test pairs at hand (100 wanted)" in str(done.exception)


def test_controls_name_the_component_and_a_page_speaks_of_one_only_where_it_is(once: Once) -> None:
    run = once.searched(
        QUICKSTART, "--set", "space.variables=[sum_ab,total]", "--set", "pairs.test=128"
    )
    shown = CliRunner().invoke(cli, ["results", str(run), "--accepted"]).output
    controls = shown.partition("Controls (IIA)")[2]
    if controls:
        assert "component" in controls
        assert "residual" in controls
    write_page(open_folder(run))
    page = (run / "report.html").read_text()
    assert ("A control that does as well is said above" in page) == ("does as well: " in page)
