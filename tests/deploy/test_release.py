"""What a release is made of: an sdist, the wheel that is built from it, and the job that comes with
both."""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raysearch.cli.example import EXAMPLES
from raysearch.cli.main import cli
from raysearch.deploy.wheel import build_wheel
from raysearch.job import Job
from tests.command import environment
from tests.once import Once

ROOT = Path(__file__).parents[2]
TOP = "raysearch_alignment-0.1.0"


def _tracked(*folders: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return set(filter(None, listed.split("\0")))


def _example(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["example", *arguments], standalone_mode=False)


@pytest.fixture(scope="session")
def released(once: Once) -> Path:
    """A folder with the sdist of this checkout, and the wheel that pip builds from the sdist."""

    def build(folder: Path) -> None:
        make = ["make", f"BIN={Path(sys.executable).parent}", f"DIST={folder}", "dist"]
        subprocess.run([*make, "-o", ".venv/.installed"], cwd=ROOT, check=True)

    return once("released", build)


def test_the_example_is_the_job_of_the_readme_and_finds_its_model_where_it_is_written(
    tmp_path: Path,
) -> None:
    result = _example("--to", str(tmp_path / "a folder/of mine"))
    assert result.exception is None
    written = tmp_path / "a folder/of mine/quickstart.yaml"
    assert written.read_bytes() == (ROOT / "jobs/quickstart.yaml").read_bytes()
    assert Job.load(written).model.path == str(written.parent / "planted/model")
    assert result.stdout.splitlines() == [str(written), str(written.parent / "planted/model")]
    assert result.stderr == f"raysearch: go on with: raysearch submit '{written}'\n"
    assert not [path for path in written.parent.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("there", ["quickstart.yaml", "planted/model"])
def test_the_example_writes_over_nothing(tmp_path: Path, there: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine")
    result = _example("--to", str(tmp_path))
    assert str(result.exception) == (
        f"{tmp_path / there}: is there already; give --to another folder"
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / there]


def test_the_example_says_in_one_line_that_its_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = _example("--to", str(tmp_path / "file" / "below"))
    assert str(result.exception).endswith(
        "cannot be made (Not a directory); give --to another folder"
    )


def test_the_package_links_to_every_file_of_the_examples_model_and_has_no_other() -> None:
    """In a checkout, examples are links, so that each file is tracked once."""
    links = {path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*") if path.is_symlink()}
    jobs = ROOT / "jobs"
    files = {path.relative_to(jobs) for path in (jobs / "planted/model").iterdir()}
    assert links == {Path("quickstart.yaml"), *files}
    for link in links:
        assert (EXAMPLES / link).resolve() == jobs / link
        assert not os.path.isabs(os.readlink(EXAMPLES / link))


@pytest.mark.slow
def test_an_sdist_has_all_that_is_tracked_and_its_wheel_is_the_one_that_a_cluster_is_sent(
    released: Path,
) -> None:
    (sdist,) = released.glob("*.tar.gz")
    (built,) = released.glob("*.whl")
    with tarfile.open(sdist) as archive:
        members = {member.name.removeprefix(f"{TOP}/"): member for member in archive}
    assert not [member.name for member in members.values() if member.issym() or member.islnk()]
    left_out = {name for name in _tracked() if name.startswith(".")}
    assert _tracked() - left_out - members.keys() == set()
    held = {name for name in zipfile.ZipFile(built).namelist() if ".dist-info/" not in name}
    assert held == _tracked("raysearch")
    name, _ = build_wheel()
    assert name == built.name


@pytest.mark.slow
def test_the_quick_start_runs_from_an_installed_wheel_in_an_empty_folder(
    released: Path, tmp_path: Path
) -> None:
    (built,) = released.glob("*.whl")
    home, here = tmp_path / "venv", tmp_path / "empty"
    here.mkdir()
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site / "packages.pth").write_text("\n".join(packages))  # .pth files in these are not read
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin/python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(built)], check=True)

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [str(home / "bin/raysearch"), *arguments],
            cwd=here,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = subprocess.run(
        [str(home / "bin/python"), "-c", "import raysearch; print(raysearch.__file__)"],
        cwd=here,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.startswith(str(site))
    assert command("example").split() == ["quickstart.yaml", "planted/model"]
    assert "Alignment: accepted hypotheses" in command("submit", "quickstart.yaml")
    assert len(json.loads(command("results", "latest", "--accepted", "-o", "json"))) == 7
