"""Whatever a job file or a file of pairs has become: one line that says what is wrong, exit code 2,
nothing touched; never a traceback.

The short form; `make fuzz` runs 1,000 cases of each.
"""

import contextlib
import hashlib
import io
import json
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysearch.cli.main import main
from raysearch.job import Job
from tests.fuzz.broken import WHOLE, broken_jobs, broken_pairs

ROOT = Path(__file__).parents[2]
SECONDS = 60
"""That a command may take to refuse what it is given, on a machine that does other things too."""
MODEL = str(ROOT / "jobs/planted/model")
LONG = settings.get_current_profile_name() == "fuzz"
CASES = settings.default.max_examples if LONG else 40
RUNS = 100 if LONG else 6
pytestmark = pytest.mark.timeout(14_400 if LONG else 600)
SPACED = settings(max_examples=CASES, suppress_health_check=list(HealthCheck), derandomize=not LONG)
"""The short form has the same cases each time, so that nobody's change fails of a case that he did
not bring about."""


@dataclass(frozen=True)
class Said:
    """What a command left."""

    code: int
    out: str
    err: str


def call(*arguments: str) -> Said:
    """`raysearch` as its script calls it, in this process; whatever it does not catch comes out
    here."""
    out, err = io.StringIO(), io.StringIO()
    before, argv = signal.getsignal(signal.SIGTERM), sys.argv
    sys.argv = ["raysearch", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _at_most(SECONDS):
            main()
    except SystemExit as e:
        code = e.code
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, before)
    assert isinstance(code, int)
    return Said(code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True, scope="module")
def no_hub() -> Iterator[None]:
    """A word in the place of a model's path would be looked for on the hub."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    yield
    constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _job(**changes: Any) -> dict[str, Any]:
    job = yaml.safe_load((ROOT / "jobs/quickstart.yaml").read_text())
    job["model"]["path"] = MODEL
    job["pairs"] = {"test": 24, "fit": 24, "holdout": 4, "seed": 0}
    return job | changes


JOBS = [
    _job(),
    _job(
        space={
            "variables": ["a"],
            "layers": {"from": 0, "to": 3, "step": 2},
            "components": ["residual", "head"],
            "heads": [0, 1],
            "positions": ["a", "last"],
            "subspaces": [
                "full",
                {"das": [1, 4]},
                {"coordinates": [0, 5]},
                {"pca": [2]},
                {"mask": {}},
            ],
        },
        fit={"steps": 10, "batch": 4, "seeds": [0, 1], "rungs": [5]},
        controls=["random_subspace"],
        test={"use": "fixed", "pairs": 8, "threshold": 0.8},
    ),
    _job(
        space={
            "variables": ["a", "sum_ab"],
            "units": [
                [
                    {"layer": 0, "position": "a"},
                    {"layer": 1, "component": "head", "head": 1, "position": "b"},
                ]
            ],
        },
        propose={"use": "exhaustive"},
        answer={"compare": "first_token"},
        resources={"replicas": 1, "gpus": 0, "cpus": 1, "rows": 16, "memory": 1.5},
    ),
]


def _side(a: int, b: int, c: int) -> dict[str, Any]:
    return {"text": f"{a}+{b}+{c}=", "positions": {"a": [0, 1], "b": [2, 3]}}


def _pair(base: tuple[int, int, int], source: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "base": _side(*base),
        "source": _side(*source),
        "answers": {"base": str(sum(base)), "source": str(sum(source))},
        "counterfactual": {
            "a": str(source[0] + sum(base[1:])),
            "b": str(base[0] + source[1] + base[2]),
        },
        "split": "test",
        "set": "one",
    }


NUMBERS = [(n, (n * 3 + 1) % 7, (n * 5 + 2) % 8) for n in range(8)]
PAIRS = [_pair(b, s) for b, s in zip(NUMBERS, NUMBERS[3:] + NUMBERS[:3], strict=True)]
OF_PAIRS = {
    "name": "fuzz",
    "model": {"path": MODEL},
    "problem": {"pairs": "pairs.jsonl"},
    "pairs": {"test": 8, "fit": 0, "holdout": 2},
    "space": {"layers": [0, 1], "positions": ["a", "last"]},
}


def test_what_is_bent_was_valid(tmp_path: Path) -> None:
    for at, job in enumerate(JOBS):
        (tmp_path / f"{at}.yaml").write_text(yaml.safe_dump(job))
        said = call("plan", str(tmp_path / f"{at}.yaml"))
        assert said.code == 0, said.err
    _write_pairs(tmp_path, "\n".join(map(json.dumps, PAIRS)).encode())
    said = call("plan", str(tmp_path / "job.yaml"))
    assert said.code == 0, said.err


@pytest.mark.parametrize("file", ["job.yaml", "pairs.jsonl"])
def test_what_is_no_job_and_no_pairs_is_refused_in_one_line(file: str, tmp_path: Path) -> None:
    _write_pairs(tmp_path, b"")
    for content in WHOLE:
        (tmp_path / file).write_bytes(content)
        said = call("plan", str(tmp_path / "job.yaml"))
        _check(said, tmp_path, file, done=())


@SPACED
@given(content=broken_jobs(JOBS))
def test_a_broken_job_is_refused_in_one_line(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("job")
    (folder / "job.yaml").write_bytes(content)
    said = call("plan", str(folder / "job.yaml"))
    _check(said, folder, "job.yaml")
    assert (folder / "job.yaml").read_bytes() == content


@SPACED
@given(content=broken_pairs(PAIRS))
def test_a_broken_file_of_pairs_is_refused_in_one_line(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    _write_pairs(folder, content)
    said = call("plan", str(folder / "job.yaml"))
    _check(said, folder, "pairs.jsonl")
    assert (folder / "pairs.jsonl").read_bytes() == content


@settings(SPACED, max_examples=RUNS)
@given(data=st.data())
def test_a_broken_search_leaves_what_was_there(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    if data.draw(st.booleans()):
        (folder / "job.yaml").write_bytes(data.draw(broken_jobs(JOBS[:1])))
    else:
        _write_pairs(folder, data.draw(broken_pairs(PAIRS)))
    store = folder / "runs"
    earlier = store / "earlier-20260101T000000Z-00000000"
    (earlier / "journal").mkdir(parents=True)
    (earlier / "run.json").write_text('{"id": "earlier"}')
    before = _digests(folder)
    flags = ("--pool", "local", "--tracking-uri", "none", "-q", "--store", str(store))
    said = call("run", str(folder / "job.yaml"), *flags)
    after = _digests(folder)
    assert {path: after.get(path) for path in before} == before
    if said.code == 2:
        assert after == before, "what was refused left a run behind"
    _check(
        said,
        folder,
        "pairs.jsonl" if (folder / "pairs.jsonl").exists() else "job.yaml",
        done=(0, 3),
    )


def _write_pairs(folder: Path, content: bytes) -> None:
    (folder / "pairs.jsonl").write_bytes(content)
    (folder / "job.yaml").write_text(yaml.safe_dump(OF_PAIRS))


def _digests(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


KEY = re.compile(
    rf"({'|'.join(Job.model_fields)}|job|line \d+|character \d+|pair \d+|byte "
    rf"\d+|holds|tokenizer)\b"
)
"""Where in a file: a key's path, or a place in the text."""


def _check(said: Said, folder: Path, file: str, done: tuple[int, ...] = (0,)) -> None:
    """Done, or refused: one line that names the file and the place in it."""
    assert "Traceback" not in said.err
    if said.code in done:
        return
    lines = said.err.splitlines()
    assert said.code == 2, said.err
    assert said.out == ""
    assert len(lines) == 1, said.err
    assert lines[0].startswith("raysearch: ")
    assert len(lines[0]) < 1500, "an error that nobody reads"
    places = tuple(f"raysearch: {folder / name}: " for name in {"job.yaml", file})
    place = next((lines[0].removeprefix(p) for p in places if lines[0].startswith(p)), None)
    assert place is not None, f"does not name the file: {lines[0]}"
    assert KEY.search(place), f"does not say where: {lines[0]}"
