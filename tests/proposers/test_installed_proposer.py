"""A proposer that an installed package adds by an entry point, with a search logic of its own."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runner.finished import JOB, files, make, raysearch

CODE = '''
import raysearch as rs


class Climber:
    """Proposes the site with the largest effect of each variable, then all others of its layer."""

    name = "climber"
    max_hypotheses = None
    fit_pairs = 12

    def __init__(self, space, seeds=1):
        self.space, self.seeds = space, seeds

    def propose(self, known):
        if known.generations == 0:
            return [h for v in self.space.variables for h in self.best(v, known.effects[v])]
        layers = {layer(d.hypothesis) for d in known.decided.values() if d.verdict == "accept"}
        return [h for h in self.space if layer(h) in layers]

    def best(self, variable, effects):
        of = [h for h in self.space if h.variable == variable]
        return sorted(of, key=lambda h: -effects[h.intervention.units[0]])[: self.seeds]


def layer(hypothesis):
    return hypothesis.intervention.units[0].site.layer
'''
USES: dict[str, Any] = {
    **JOB,
    "pairs": {"test": 96, "holdout": 16, "fit": 16},
    "test": {"max_pairs": 96},
    "propose": {"use": "climber", "options": {"seeds": 1}},
}


def install(folder: Path, code: str = CODE, points: str = "climber = climber:Climber") -> Path:
    """Puts a package into a folder as pip would: a module and its metadata."""
    info = folder / "raysearch_climber-1.2.dist-info"
    info.mkdir(parents=True)
    (folder / "climber.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: raysearch-climber\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[raysearch.proposers]\n{points}\n")
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "climber", raising=False)
    monkeypatch.syspath_prepend(str(install(tmp_path / "site")))
    return tmp_path / "site"


def said_of(use: dict[str, Any], folder: Path) -> str:
    """The one line by which a job with this `propose` is refused."""
    job = folder / "job.yaml"
    job.write_text(json.dumps({**USES, "propose": use}))
    code, _, said = raysearch("plan", str(job))
    assert code == 2, said
    return said.strip().splitlines()[-1]


@pytest.mark.slow  # a whole job, several times
def test_it_searches_resumes_and_is_looked_at(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path, USES)
    rows = json.loads(raysearch("results", str(run), "-o", "json")[1])
    assert {row["proposed_by"] for row in rows} == {"climber"}
    first = [row for row in rows if row["generation"] == 0]
    assert 1 <= len({(r["layer"], r["position"]) for r in first}) <= 2 < len(rows)
    found = {r["layer"] for r in first if r["verdict"] == "accept"}
    assert {r["layer"] for r in rows if r["generation"] == 1} == found != set()

    cut = shutil.copytree(run, tmp_path / "cut" / run.name)
    (journal,) = (cut / "journal").rglob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    end = next(n for n, line in enumerate(lines) if b"attributed" in line)
    journal.write_bytes(b"".join(lines[: end + 1]))
    code, _, said = raysearch("resume", str(cut), "--pool", "local")
    assert code == 0, said
    assert "runs code of: climber, " in said
    again = json.loads(raysearch("results", str(cut), "-o", "json")[1])
    assert again == rows

    (package / "climber.py").write_text(CODE.replace("seeds=1", "seeds=2"))
    other = shutil.copytree(run, tmp_path / "other" / run.name)
    (journal,) = (other / "journal").rglob("*.jsonl")
    journal.write_bytes(b"".join(lines[: end + 1]))
    code, _, said = raysearch("resume", str(other), "--pool", "local")
    assert (code, "climber" in said, "was changed since it began" in said) == (2, True, True)

    shutil.rmtree(package)
    before = files(run)
    for command in (["results", str(run)], ["status", str(run)], ["report", str(run)]):
        code, _, said = raysearch(*command)
        assert code == 0, said
    assert "stage     done" in raysearch("status", str(run))[1]
    assert {name for name, content in files(run).items() if before.get(name) != content} <= {
        "report.html"
    }
    code, _, said = raysearch("resume", str(other), "--pool", "local")
    assert code == 2
    assert "propose.use: 'climber' is no proposer; it may be exhaustive, refine" in said


def test_plan_and_schema_say_what_it_is(package: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps(USES))
    code, out, said = raysearch("plan", str(job))
    assert code == 0, said
    assert f"runs code of: climber, {package / 'climber.py'} (sha256" in said
    assert (
        "climber, open-ended: the n proposals of its g-th generation are judged at K = n g(g + 1)"
        in out
    )
    use = json.loads(raysearch("schema")[1])["$defs"]["ProposeKeys"]["properties"]["use"]
    assert "climber" in use["anyOf"][0]["enum"]
    assert "climber: of the package raysearch-climber 1.2; or" in use["description"]


@pytest.mark.parametrize(
    ("use", "says"),
    [
        ({"use": "climbers"}, "'climbers' is no proposer; did you mean 'climber'? it may be exh"),
        (
            {"use": "climber", "options": {"step": 1}},
            "propose.options: climber: got an unexpected keyword argument 'step'; it takes seeds",
        ),
    ],
)
def test_a_mistake_in_a_job_that_uses_it_is_one_line(
    package: Path, tmp_path: Path, use: dict[str, Any], says: str
) -> None:
    assert says in said_of(use, tmp_path)


@pytest.mark.parametrize(
    ("code", "points", "says"),
    [
        (
            "raise OSError('no GPU')",
            "c = climber:Climber",
            "climber:Climber cannot be imported (OSError: no GPU)",
        ),
        (
            "x = 1",
            "c = climber:Climber",
            "c of raysearch-climber 1.2: climber:Climber cannot be imported",
        ),
        ("Climber = 3", "c = climber:Climber", "propose.use: c is int; it must be a class"),
        (CODE.replace("= 12", "= -1"), "c = climber:Climber", "fit_pairs of c is -1; it must be"),
        (
            CODE.replace("= None", "= 0"),
            "c = climber:Climber",
            "max_hypotheses of c is 0; it must be a n",
        ),
    ],
)
def test_a_package_that_is_broken_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, points: str, says: str
) -> None:
    monkeypatch.delitem(sys.modules, "climber", raising=False)
    monkeypatch.syspath_prepend(str(install(tmp_path / "site", code, points)))
    assert says in said_of({"use": "c"}, tmp_path)


def test_no_package_takes_the_place_of_a_proposer_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = "refine = climber:Climber"
    monkeypatch.syspath_prepend(str(install(tmp_path / "site", "raise OSError", points)))
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps({**USES, "propose": {"use": "refine"}}))
    code, out, said = raysearch("plan", str(job))
    assert (code, "refine: tests some of the 8, as it learns" in out) == (0, True), said
