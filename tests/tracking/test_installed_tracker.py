"""A tracker that an installed package adds by an entry point: a file of JSON lines."""

import json
import sys
from pathlib import Path

import pytest

import raysearch
from raysearch.errors import JobError
from raysearch.proposers.weights import PAIRS
from raysearch.tracking.registry import DEFAULT, tracker_of
from raysearch.tracking.uris import tracking_uri
from tests.runner.finished import JOB
from tests.runner.finished import raysearch as command

CODE = """
import json
from pathlib import Path


class Lines:
    name = "lines"
    title = "Lines"
    example = "lines:///shared/FILE"
    credentials = "no password"

    def open(self, run):
        return LinesTracker(run)

    def check(self, uri):
        return f"{uri} is a file"


class LinesTracker:
    why = None

    def __init__(self, run):
        self.run_id = run.run_id or "first"
        self.file = Path(run.uri.removeprefix("lines://"))
        self.say(opened=run.name, again=run.again, pairs=run.pairs.counts, job=run.params["name"],
                 claim=run.description[:44])

    def say(self, **what):
        with self.file.open("a") as file:
            file.write(json.dumps(what) + "\\n")

    def write_records(self, records, replayed=False):
        self.say(records=len(records), replayed=replayed)

    def snapshot(self, snapshot):
        self.say(accepted=snapshot.accepted)

    replayed = snapshot

    def close(self, status, artifacts=(), tables=None, timeout=None, children=()):
        names = sorted({Path(a[0] if isinstance(a, tuple) else a).name for a in artifacts})
        self.say(closed=status, files=names, rows=len(tables["alignment"]["variable"]),
                 children=[child.title for child in children])
        return True


lines = Lines()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    info = tmp_path / "site" / "raysearch_lines-0.3.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "lines_tracker.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: raysearch-lines\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[raysearch.trackers]\nlines = lines_tracker:lines\n")
    monkeypatch.delitem(sys.modules, "lines_tracker", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def test_a_run_is_shown_by_it_from_its_begin_to_its_end_and_again(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {"pairs": {"test": 96, "holdout": 16}, "test": {"max_pairs": 96}}
    (tmp_path / "job.yaml").write_text(json.dumps({**JOB, **sizes}))
    uri = f"lines://{tmp_path / 'told.jsonl'}"
    code, _, said = command("run", "job.yaml", "--pool", "local", "--tracking-uri", uri)
    assert code == 0, said
    assert f"lines     writing to {uri} (--tracking-uri none: no " in said
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    # Fit pairs are drawn before a model says how many hypotheses there are, and not run for so few.
    (run,) = (tmp_path / "runs").iterdir()
    assert told[0] == {
        "opened": run.name,
        "again": False,
        "pairs": {"fit": 4 * PAIRS, "test": 4 * 96, "holdout": 4 * 16},
        "job": "small",
        "claim": "Accepted: sufficient under interchange, IIA ",
    }
    accepted = [line["accepted"] for line in told if "accepted" in line]
    end = told[-1]
    assert accepted[-1] == end["rows"] == len(end["children"]) > 0
    assert end["closed"] == "done"
    assert {"job.yaml", "report.html", "run.json"} <= set(end["files"])
    assert f"lines     run first at {uri}" in command("status", str(run))[1]

    code, _, said = command("sync", str(run))
    assert code == 0, said
    assert f"lines     run first of experiment raysearch/small at {uri}" in said
    again = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert again[len(told)]["again"] is True
    assert again[-1] == end


def test_a_uri_says_which_tracker_it_is_for(package: Path) -> None:
    assert tracker_of("lines:///x").title == "Lines"
    for uri in ("sqlite:////x/mlflow.db", "http://host:5000", "mlruns", "s3://lines", "lines"):
        assert tracker_of(uri) is DEFAULT
    assert tracking_uri("lines:///x") == "lines:///x"
    assert tracking_uri("none") is None


def test_a_package_that_is_broken_is_named_before_a_run_begins(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "lines_tracker.py").write_text("import no_such_module")
    (tmp_path / "job.yaml").write_text(json.dumps(JOB))
    monkeypatch.chdir(tmp_path)
    code, _, said = command("run", "job.yaml", "--pool", "local", "--tracking-uri", "lines:///x")
    assert code == 2
    assert (
        "--tracking-uri: lines of raysearch-lines 0.3: lines_tracker:lines cannot be imported "
        "(ModuleNotFoundError" in said
    )
    assert not list((tmp_path / "runs").glob("*-*"))


def test_what_is_no_tracker_is_refused_in_one_line(package: Path) -> None:
    (package / "lines_tracker.py").write_text("lines = 3")
    with pytest.raises(
        JobError, match=r"lines of raysearch-lines 0\.3 is no tracker: it lacks name"
    ):
        tracker_of("lines:///x")


def test_no_tracker_is_named_outside_its_room() -> None:
    """But for the texts of flags and keys, the name of a flag, runs of before, and `deploy`, which
    renders a server."""
    allowed = ("help=", "description=", '"""', "--mlflow-children", "MLFLOW_CHILDREN", "mlflow.db")
    root = Path(raysearch.__file__).parent
    files = [f for f in sorted(root.rglob("*.py")) if not {"tracking", "deploy"} & set(f.parts)]
    named = [
        f"{file.relative_to(root)}: {line.strip()}"
        for file in files
        for line in file.read_text().splitlines()
        if "mlflow" in line.lower() and not any(text in line for text in allowed)
    ]
    assert [line for line in named if "run_folder.py: _OLD_NAMES" not in line] == []
