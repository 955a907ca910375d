"""Featurizers of an installed package (tests/plugin_package, with a trained one, a computed one and
a given one of its own mathematics): accepted by jobs, searched, kept, exported, resumed."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysearch import plugins
from raysearch.errors import JobError
from raysearch.problems.load_problem import named_problem
from tests.cli.conftest import ROOT, Shell
from tests.command import Running, environment, forked

pytestmark = pytest.mark.timeout(600)

PACKAGE = Path(__file__).parent / "plugin_package"
LOCAL = ["--pool", "local", "--tracking-uri", "none", "-q"]
JOB: dict[str, Any] = {
    "name": "twisted",
    "model": {"path": str(ROOT / "jobs/planted/model")},
    "problem": {"use": "raysearch.problems.add_three"},
    "pairs": {"test": 60, "fit": 48, "holdout": 32},
    "space": {
        "variables": ["total"],
        "layers": [3],
        "positions": ["last"],
        "subspaces": [
            "first_half",
            {"busiest": [48]},
            {"mirror": {"sizes": [8, 16], "strength": 0.75}},
        ],
    },
    "fit": {"steps": 24, "batch": 8, "learning_rate": 0.05, "seeds": [0], "evaluate": 4},
    "test": {"threshold": 0.5},
}
MANY = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from raysearch.cli.main import main
hypotheses = {}
for command in json.loads(sys.argv.pop()):
    command = [hypotheses.get(argument, argument) for argument in command]
    sys.argv[1:], out, err = command, io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as e:
            code = e.code
    if command[0] == "results":
        hypotheses = {f"ID {row['featurizer']}": row["hypothesis"] for row in json.loads(out.getvalue())}
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
"""Calls several commands in one process: installed packages are looked for once in each.
"ID NAME" stands for a hypothesis of that featurizer in the results that were printed last."""


def _job(folder: Path, job: dict[str, Any] = JOB, name: str = "job.yaml") -> str:
    (folder / name).write_text(yaml.safe_dump(job))
    return str(folder / name)


def _with(subspace: Any) -> dict[str, Any]:
    return {**JOB, "space": {**JOB["space"], "subspaces": [subspace]}}


def _python(
    code: str, folder: Path, argument: str, package: Path = PACKAGE
) -> subprocess.CompletedProcess[str]:
    """Runs `code` with the package installed and raysearch not yet imported."""
    (folder / "code.py").write_text(code)
    env = environment(PYTHONPATH=f"{package}:{ROOT}")
    return forked((argument,), folder, env, folder / "code.py", anew=True)


def _commands(folder: Path, commands: list[list[str]], package: Path = PACKAGE) -> list[Any]:
    """(exit code, stdout, stderr) of each command, with the package installed."""
    done = _python(MANY, folder, json.dumps(commands), package=package)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A folder with a run that was killed in its fits and resumed, and what commands say of it."""
    folder = tmp_path_factory.mktemp("twisted")
    (folder / "run.py").write_text(MANY)
    command = (json.dumps([["run", _job(folder), *LOCAL]]),)
    env = environment(PYTHONPATH=f"{PACKAGE}:{ROOT}")
    running = Running(command, folder, env, folder / "run.py", anew=True)
    while b'"type":"fitted"' not in b"".join(
        f.read_bytes() for f in folder.glob("runs/*/journal/*/*.jsonl")
    ):
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    said = _commands(
        folder,
        [
            ["resume", "latest", "--pool", "local", "-q"],
            ["results", "latest", "-o", "json"],
            ["export", "latest", "ID mirror", "--to", "mirror"],
            ["export", "latest", "ID first_half", "--to", "first_half"],
            ["export", "latest", "ID busiest", "--to", "busiest"],
            ["run", _job(folder), *LOCAL, "--store", str(folder / "again")],
            ["results", "latest", "--store", str(folder / "again"), "-o", "json"],
        ],
    )
    assert [code for code, _, _ in said] == [0] * 7, said
    return folder, said


def test_a_search_finds_what_they_find_and_resumes_to_the_same(
    found: tuple[Path, list[Any]],
) -> None:
    _, said = found
    resumed, undisturbed = json.loads(said[1][1]), json.loads(said[6][1])
    by_name = {(row["featurizer"], row["features"]): row for row in resumed}
    assert by_name.keys() == {
        ("first_half", None),
        ("busiest", 48),
        ("mirror", 8),
        ("mirror", 16),
    }
    assert {"accept", "reject"} <= {row["verdict"] for row in resumed}
    assert resumed == undisturbed
    units = json.loads(by_name["mirror", 8]["units"])
    assert json.loads(units[0]["subspace"]["options"]) == {"strength": 0.75}


def test_an_export_says_what_it_is_and_computes_what_was_tested(
    found: tuple[Path, list[Any]],
) -> None:
    folder, _ = found
    readme = (folder / "mirror" / "README.md").read_text()
    assert "- mirror: columns R of a product of reflections, s its strength" in readme
    assert '`{"strength":0.75}`' in readme
    assert (
        "- first_half: The first half of the coordinates."
        in (folder / "first_half" / "README.md").read_text()
    )
    script = (
        "import sys, torch, raysearch as rs\n"
        "f = rs.load_intervention(sys.argv[1]).featurizer\n"
        "x, y = torch.randn(2, 5, 64)\n"
        "r = f.directions.detach()\n"
        "assert torch.allclose(f.interchange(x, y), x + 0.75 * (y - x) @ r @ r.T, atol=1e-5)\n"
        "try:\n    f.orthonormal_directions()\n"
        "except ValueError as e: print(type(f).__name__, e)\n"
    )
    done = _python(script, folder, "mirror")
    assert done.stdout.startswith("Mirror mirror lets parts of features through"), done.stderr


@pytest.mark.parametrize("command", ["resume", "plan"])
def test_without_the_package_its_run_and_its_job_are_refused_in_one_line(
    found: tuple[Path, list[Any]], command: str
) -> None:
    folder, _ = found
    what = ["resume", "latest", "--pool", "local"] if command == "resume" else ["plan", "job.yaml"]
    done = Shell(folder)(*what)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "space.subspaces.0" in done.stderr
    assert "mirror" not in Shell(folder)("schema").stdout


def test_a_mistake_in_a_job_gets_one_line_with_the_packages_words(tmp_path: Path) -> None:
    jobs = {
        "mirror": "space.subspaces.0: should be full, {coordinates: [0, 16]}, {das: [1, 4]}",
        "{mirror: {sizes: [4], strength: 2}}": "space.subspaces.0.mirror.strength: input should be less than",
        "{mirror: {sizes: [4], strong: 1}}": "did you mean 'strength'? allowed: strength, sizes",
        "{mirror: {strength: 1}}": "space.subspaces.0.mirror.sizes: missing",
        "{mirorr: {sizes: [4]}}": "space.subspaces.0.mirorr: unknown key; did you mean 'mirror'?",
        "{busiest: [65]}": "busiest",
    }
    commands = []
    for i, written in enumerate(jobs):
        job = _with(yaml.safe_load(written))
        commands.append(["run" if "65" in written else "plan", _job(tmp_path, job, f"{i}.yaml")])
    commands[-1] += LOCAL
    *refused, (_, shown, _) = _commands(tmp_path, [*commands, ["schema", "--markdown"]])
    for (code, _, err), says in zip(refused, jobs.values(), strict=True):
        assert code, says
        assert says in err, err
    assert "| `mirror` | a mapping, or null |" in shown
    assert "first_half: The first half of the coordinates." in shown


REFUSED = {
    "das = twist:MIRROR": "entry point 'das' of raysearch.featurizers in raysearch-twist 0.1: "
    "raysearch has one of that name",
    "full = twist:MIRROR": "'full' of raysearch.featurizers in raysearch-twist 0.1: raysearch has one of that name",
    "nothing = twist:NOTHING": "in raysearch-twist 0.1: twist:NOTHING cannot be imported (AttributeError",
    "none = twist.none:X": "twist.none:X cannot be imported (ModuleNotFoundError",
    "other = twist:MIRROR": "it must be a FeaturizerKind of raysearch.core.featurizers called 'other'",
    "maths = twist.maths:Mirror": "is <class 'twist.maths.Mirror'>; it must be a FeaturizerKind",
    "same = twist:COPY": "called 'same'",
    "text = twist:TEXT": "its options cannot be read",
    "gone = twist.gone:X": "twist.gone:X cannot be imported (SystemExit: no licence",
}
"""Entry points that cannot be taken, and what is said of each."""


def test_an_entry_that_cannot_be_taken_stops_only_who_names_it(tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(PACKAGE, package)
    with (package / "twist" / "__init__.py").open("a") as file:
        file.write("\nimport dataclasses\nCOPY = dataclasses.replace(MIRROR, name='copy')\n")
        file.write("TEXT = dataclasses.replace(MIRROR, name='text', options='strength')\n")
    (package / "twist" / "gone.py").write_text("import sys\nsys.exit('no licence\\nhere')\n")
    entries = package / "raysearch_twist-0.1.dist-info" / "entry_points.txt"
    entries.write_text("\n".join(["[raysearch.featurizers]", *REFUSED, ""]))
    other = _job(tmp_path, _with({"pca": [4]}), "other.yaml")
    commands, expected = [["schema"], ["plan", other]], []
    for entry, says in REFUSED.items():
        name = entry.partition(" ")[0]
        if name not in ("das", "full"):  # they are of raysearch itself
            for subspace in ({name: {"sizes": [4]}}, name):
                job = _job(tmp_path, _with(subspace), f"{len(commands)}.yaml")
                commands.append(["plan", job])
                expected.append(says)
    schema, plan, *refused = _commands(tmp_path, commands, package)
    assert (schema[0], plan[0]) == (0, 0)
    for says in REFUSED.values():
        warning, *rest = [line for line in (schema[2] + plan[2]).splitlines() if says in line]
        assert "only what names it is refused" in warning
        assert not rest, "it warns once"
    for (code, _, err), says in zip(refused, expected, strict=True):
        assert code == 2
        assert ".yaml: space.subspaces.0: entry point" in err
        assert says in err
        assert err.count("\n") == 1


def test_of_two_packages_that_claim_one_name_neither_is_taken_where_it_is_named(
    tmp_path: Path,
) -> None:
    package = tmp_path / "package"
    shutil.copytree(PACKAGE, package)
    other = package / "raysearch_other-2.dist-info"
    shutil.copytree(package / "raysearch_twist-0.1.dist-info", other)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: raysearch-other\nVersion: 2\n")
    commands = [["plan", _job(tmp_path, _with({"mirror": {"sizes": [4]}}))], ["schema"]]
    plan, schema = _commands(tmp_path, commands, package)
    assert (plan[0], schema[0]) == (2, 0)
    assert plan[2].count("\n") == 1
    assert "in raysearch-twist 0.1: raysearch-other 2 has one of that name" in plan[2]


def test_a_name_that_two_packages_claim_is_refused_where_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(
            f"[raysearch.problems]\nsums = {name}:make\n{name}s = {name}:make\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(JobError, match=r"problem\.use: sums is an entry point of one 1 and of two"):
        named_problem("sums")
    assert named_problem("twos")[:2] == ("two", "make")
    with pytest.raises(JobError, match=r"propose\.use: no installed package has 'sums'"):
        plugins.load("raysearch.proposers", "sums", "propose.use")
