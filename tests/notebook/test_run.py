"""The notebook's face of a search, on the planted model: what the command line finds, to look into
from Python."""

import math
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import raysearch as rs
from raysearch.core.records import Snapshot
from raysearch.errors import JobError, StoreError
from raysearch.notebook.progress import CellProgress
from raysearch.report.claim import read_claim
from raysearch.runner.session.status import local_status
from raysearch.storage.digests_json import Digests, write_digests
from raysearch.storage.open_folder import open_folder
from raysearch.store.run_folder import find_run
from tests.cli.conftest import QUICKSTART, Shell
from tests.cli.test_runs import FEWER
from tests.cluster.worlds import true_cells
from tests.command import HEATMAPS
from tests.edited import unended
from tests.notebook.kernel import kernel
from tests.once import Once


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> rs.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HEATMAPS, "on")
        return rs.run(QUICKSTART, store=tmp_path_factory.mktemp("searched"), quiet=True)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def _rows(run: rs.Run) -> list[dict[str, Any]]:
    """As `results -o json` has them."""
    rows = run.to_arrow().to_pylist()
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in r.items()}
        for r in rows
    ]


def test_a_run_from_python_finds_what_the_command_line_finds(
    searched: rs.Run, shell: Shell, once: Once
) -> None:
    place = str(once.searched(QUICKSTART))
    assert shell.json("results", place, "-o", "json") == _rows(searched)
    theirs = rs.Run.open(place)
    assert _rows(theirs) == _rows(searched)
    assert theirs.info.job_hash == searched.info.job_hash
    assert theirs.job.to_yaml() == searched.job.to_yaml()


@pytest.mark.slow
def test_on_ray_it_is_the_same(searched: rs.Run, tmp_path: Path) -> None:
    job = rs.Job.load(QUICKSTART, ["resources.replicas=1"])
    assert _rows(rs.run(job, store=tmp_path, pool="ray", quiet=True)) == _rows(searched)


@pytest.mark.slow
def test_a_job_may_be_written_in_python(searched: rs.Run, tmp_path: Path) -> None:
    asked = searched.job.model_dump(mode="json", by_alias=True)
    asked["space"]["variables"] = ["sum_ab"]
    asked["space"]["layers"] = [1, 2]
    run = rs.run(rs.Job.parse(asked), store=tmp_path, quiet=True)
    assert run.alignment[["variable", "layer", "position"]].to_numpy().tolist() == [
        ["sum_ab", 1, "plus2"]
    ]
    assert run.to_arrow().num_rows == 2 * 6


def test_the_alignment_is_a_frame_of_what_is_true(searched: rs.Run) -> None:
    found = searched.alignment
    assert {(r.variable, r.layer, r.position) for r in found.itertuples()} == true_cells()
    assert str(found["layer"].dtype) == "int32[pyarrow]"
    assert found["head"].isna().all()
    assert (found["low"] > 0.8).all()
    assert len(searched.to_pandas()) == 120
    chosen = searched.results(variable="total", where="layer >= 2", top=3)
    assert chosen["variable"].tolist() == ["total"] * 3
    assert chosen["verdict"].tolist() == ["accept", "accept", "reject"]
    assert {"base_text", "block", "solved"} <= set(searched.pairs.columns)
    assert len(searched.pairs) == 4 * (
        256 + 128
    )  # as many as are drawn to make up for unsolved ones


def test_a_heat_map_is_the_picture_that_the_run_keeps(searched: rs.Run) -> None:
    figure = searched.heatmap("sum_ab")
    assert figure.png() == (Path(searched.place) / "heatmaps" / "sum_ab.png").read_bytes()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert searched.heatmap().png() == searched.heatmap("a").png() != figure.png()
    with pytest.raises(
        JobError, match="'sum' is no variable of this run; it has a, b, c, sum_ab, total"
    ):
        searched.heatmap("sum")
    with pytest.raises(JobError, match="'das 4' is no heat map of a; it has ''"):
        searched.heatmap("a", of="das 4")


def test_a_run_is_found_by_its_path_its_name_or_as_the_latest(searched: rs.Run) -> None:
    store = str(Path(searched.place).parent)
    for name in (searched.place, searched.info.id, "latest"):
        assert rs.Run.open(name, store=store).info == searched.info
    with pytest.raises(
        StoreError, match=f"there is no run 'quickstrat'.*did you mean '{searched.info.id}'"
    ):
        rs.Run.open("quickstrat", store=store)


class _Table(HTMLParser):
    """The cells of a table, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_run_shows_what_was_asked_and_what_was_found(searched: rs.Run, tmp_path: Path) -> None:
    odd = tmp_path / "<script>&"
    shutil.copytree(searched.place, odd)
    shown = _Table()
    shown.feed(rs.Run.open(str(odd))._repr_html_())
    assert "script" not in shown.tags
    assert str(odd) in "".join(shown.words)
    assert shown.tags.count("tr") == 1 + 7
    at = shown.words.index("1: residual at plus2")
    row = searched.results(variable="sum_ab", top=1).iloc[0]
    interval = f"{row['low']:.3f} to {row['high']:.3f}"
    assert shown.words[at - 1 : at + 6] == [
        "sum_ab",
        "1: residual at plus2",
        "1.000",
        interval,
        str(row["n"]),
        f"{row['holdout_iia']:.3f}",
        str(row["holdout_n"]),
    ]
    for text in ("".join(shown.words), repr(searched)):
        assert "120 hypotheses on a, b, c, sum_ab, total in" in text
        assert "7 accepted, 113 rejected, 0 undecided, 0 failed" in text
        assert interval in text
        assert (
            "sufficient under interchange, IIA above 0.8 on all pairs of this sampler that" in text
        )
        assert "any false accept is at most 0.05" in text


def test_a_run_that_accepted_nothing_says_so_and_what_became_of_its_hypotheses(
    tmp_path: Path,
) -> None:
    space = {"variables": ["a"], "layers": [3], "positions": ["b", "c"]}
    run = rs.run(QUICKSTART, space=space, store=tmp_path, quiet=True)
    said = "No hypothesis was accepted: 2 rejected. An accept would say: sufficient under"
    for shown in (repr(run), run._repr_html_(), read_claim(run.place)):
        assert said in shown
        assert "Accepted: " not in shown


def test_a_run_that_has_nothing_to_show_yet_says_so(searched: rs.Run, tmp_path: Path) -> None:
    early = tmp_path / "early"
    shutil.copytree(searched.place, early, ignore=shutil.ignore_patterns("tables"))
    write_digests(
        open_folder(str(early)), Digests()
    )  # a run whose tables are not written yet, not one that lost them
    run = rs.Run.open(str(early))
    assert "there are no hypotheses in its tables yet" in repr(run)
    assert "there are no hypotheses in its tables yet" in run._repr_html_()
    with pytest.raises(StoreError, match="no hypotheses"):
        _ = run.alignment
    with pytest.raises(StoreError, match="no hypotheses"):
        run.heatmap()


def test_mistakes_are_one_line(searched: rs.Run, tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"pool": "slurm"}, "pool: 'slurm' is none; give 'local'"),
        ({"address": "head:6379"}, "address: head:6379 is a Ray's"),
    ]
    for keywords, said in wrong:
        with pytest.raises(JobError, match=said):
            rs.run(searched.job, store=tmp_path, **keywords)
    with pytest.raises(JobError, match="no_such"):
        rs.run("no_such.yaml", store=tmp_path)
    with pytest.raises(JobError, match="job: "):
        rs.Job.parse({"name": "x"})
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_edited_is_not_gone_on_with(searched: rs.Run, tmp_path: Path) -> None:
    edited = tmp_path / "edited"
    shutil.copytree(searched.place, edited)
    text = (edited / "job.yaml").read_text()
    (edited / "job.yaml").write_text(text.replace("threshold: 0.8", "threshold: 0.7"))
    with pytest.raises(StoreError, match="was edited since the run began"):
        rs.resume(str(edited), quiet=True)


@pytest.mark.slow
def test_an_interrupted_cell_leaves_a_run_that_resumes_to_the_same(
    once: Once, tmp_path: Path
) -> None:
    undisturbed = rs.Run.open(str(once.searched(QUICKSTART, *FEWER)))
    with kernel(tmp_path) as cell:
        cell(
            f"import raysearch as rs; job = rs.Job.load({str(QUICKSTART)!r}, "
            f"{['resources.rows=2', FEWER[1]]!r})"
        )
        assert cell.status == "ok"
        said = cell("run = rs.run(job)", interrupt_at=lambda text: "testing " in text)
        assert (cell.status, cell.error) == ("error", "KeyboardInterrupt")
        run = rs.Run.open(store=str(tmp_path / "runs"))
        assert run.results()["verdict"].count() < 48
        hint = f"go on with: rs.resume({run.place!r})"
        assert any(f"interrupted; {hint}" in text for text in said)
        assert hint in said[-1]
        assert cell("1 + 1") == ["2"]  # the kernel lives
        said = cell("run = rs.resume(); run")
        assert cell.status == "ok"
        assert any("replayed " in text for text in said)
        assert "3 accepted, 45 rejected" in said[-1]
    verdicts = [
        {k: r[k] for k in ("hypothesis", "verdict", "n", "matches", "holdout_iia")}
        for r in _rows(run)
    ]
    assert verdicts == [{k: r[k] for k in verdicts[0]} for r in _rows(undisturbed)]


def test_a_cell_shows_one_output_that_is_written_anew() -> None:
    now, shown = 0.0, list[str]()
    start = Snapshot("screening", 0, 0, 0, 0, 0, pairs=0, at_most=0, queued=3, out=2)
    with CellProgress(False, shown.append, lambda: now) as cell:
        cell.say("loading   model")
        for now in (0.1, 0.2, 0.7, 0.8):  # noqa: B007  (the clock reads it)
            cell(start)
        cell.stop()
        cell.say("searched  all")
    waiting = "screening   0 of 5 blocks of pairs run without intervention"
    assert shown == [
        "loading   model",
        f"loading   model\n{waiting}",
        "loading   model",
        "loading   model\nsearched  all",
    ]
    silent = list[str]()
    with CellProgress(True, silent.append) as cell:
        cell.say("loading")
        cell(start)
    assert silent == []


def test_a_run_is_looked_into_where_its_model_is_not(tmp_path: Path) -> None:
    shutil.copytree(QUICKSTART.parent / "planted" / "model", tmp_path / "model")
    small = (
        "pairs.test=24",
        "pairs.holdout=4",
        "test.max_pairs=24",
        "space.layers=[1]",
        "space.positions=[plus2]",
    )
    job = rs.Job.load(QUICKSTART, [*small, f"model.path={tmp_path / 'model'}"])
    run = rs.run(job, store=tmp_path / "runs", quiet=True)
    there = str(run), local_status(find_run(tmp_path / "runs", "latest"))
    shutil.rmtree(tmp_path / "model")
    found = rs.Run.open(store=str(tmp_path / "runs"))
    assert (str(found), local_status(find_run(tmp_path / "runs", "latest"))) == there
    assert "status    done" in there[1]
    assert str(rs.resume(store=tmp_path / "runs", quiet=True)) == there[0]
    unended(tmp_path / "runs" / run.info.id)
    with pytest.raises(JobError, match=r"model\.path: there is no"):
        rs.resume(store=tmp_path / "runs", quiet=True)


def test_looking_into_a_run_loads_no_model_and_no_cluster(searched: rs.Run) -> None:
    code = (
        "import sys, raysearch as rs\n"
        "heavy = lambda: sorted({'torch', 'ray', 'transformers', 'mlflow', 'matplotlib'} & "
        "set(sys.modules))\n"
        "print(heavy(), 'pandas' in sys.modules)\n"
        f"run = rs.Run.open({searched.place!r}); run.alignment, run.pairs, run._repr_html_(), "
        f"run.job; print(heavy())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[] False", "[]"]
