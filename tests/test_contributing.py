"""CONTRIBUTING.md is true: a problem that is added as it says is one that jobs may name."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.command import environment, forked

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
KINDS = (
    "a problem, a featurizer, a proposer, a component, or a model family, an operation, "
    "an answer comparison, a score, a control, a tracker, a launcher, a command, a table column"
)


def _section(kind: str) -> str:
    return PAGE.partition(f"\n### {kind}\n")[2].partition("\n##")[0]


def test_the_page_says_how_to_add_one_of_each_kind() -> None:
    kinds = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    assert ", ".join(kinds) == KINDS
    for kind in kinds:
        assert re.search(r"`[a-z_]+/", _section(kind)), f"{kind}: no file is named"


def test_what_a_recipe_names_is_in_a_file_that_it_names() -> None:
    for kind in KINDS.split(", "):
        files = [
            ROOT / room / file
            for file in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", _section(kind))
            for room in ("raysearch", ".")
            if (ROOT / room / file).is_file()
        ]
        code = "".join(file.read_text() for file in files)
        for name in re.findall(r"`([A-Z_]{3,}|[A-Z][a-z]+[A-Z]\w+)`", _section(kind)):
            assert re.search(rf"\b{name}\b", code), f"{kind}: {name} is in none of {files}"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the page's problem in it, beside jobs/."""
    folder = tmp_path_factory.mktemp("copy")
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "raysearch", folder / "raysearch", ignore=without)
    (code,) = re.findall(r"```python\n(.*?)```", _section("a problem"), re.DOTALL)
    (folder / "raysearch" / "problems" / "right_to_left.py").write_text(code)
    (folder / "jobs").symlink_to(ROOT / "jobs")
    return folder


def _job(copy: Path, name: str, use: str, **space: object) -> None:
    job = {
        "name": "x",
        "model": {"path": "jobs/planted/model"},
        "problem": {"use": use},
        "pairs": {"test": 32, "fit": 0, "holdout": 0},
        "space": {"layers": [1], "positions": ["plus2"], **space},
        "test": {"max_pairs": 32},
    }
    (copy / name).write_text(yaml.safe_dump(job))


def test_a_problem_that_is_added_as_the_page_says_is_one_that_a_job_may_name(copy: Path) -> None:
    """And that errors list among the ready ones."""
    _job(copy, "job.yaml", "raysearch.problems.right_to_left", variables=["sum_bc", "total"])
    _job(copy, "wrong.yaml", "right_to_lef:problem")
    code = (
        "import sys, raysearch; from raysearch.cli.main import main\n"
        f"assert raysearch.__file__.startswith({str(copy)!r}), raysearch.__file__\n"
        "for job in ('job.yaml', 'wrong.yaml'):\n"
        "    sys.argv[1:] = ['plan', job]\n"
        "    try:\n        main()\n"
        "    except SystemExit as e:\n        print('ends with', e.code)\n"
    )
    (copy / "code.py").write_text(code)
    done = forked((), copy, environment(), copy / "code.py", anew=True)
    planned, _, rest = done.stdout.partition("ends with 0\n")
    assert "sum_bc" in planned, done.stderr
    assert rest == "ends with 2\n", done.stderr
    assert "raysearch.problems.right_to_left" in done.stderr


def test_a_package_as_the_guide_has_it_adds_a_featurizer(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "how-to" / "extend-by-a-package.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    first, *_ = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    project = tomllib.loads(first)["project"]
    points = project["entry-points"]["raysearch.featurizers"]
    (tmp_path / "halves.py").write_text(code)
    info = tmp_path / "raysearch_halves-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[raysearch.featurizers]", *lines, ""]))
    look = (
        "import torch\n"
        "from raysearch.core.featurizers import kind_of\n"
        "from raysearch.core.hypothesis import Subspace\n"
        "from raysearch.engine.featurizers.featurizer import FeaturizerContext\n"
        "from halves import FirstHalf\n"
        "assert kind_of('first_half').is_word\n"
        "made = FirstHalf.make(FeaturizerContext(subspace=Subspace('first_half'), width=4))\n"
        "print(made.interchange(torch.zeros(1, 4), torch.ones(1, 4)).tolist())"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", look], env=env, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[[1.0, 1.0, 0.0, 0.0]]", "")
