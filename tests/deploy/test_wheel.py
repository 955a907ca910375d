"""Nothing installs the name `raysearch` from an index, which is somebody else's there: raysearch
goes along as what it is."""

import re
import subprocess
import sys
import zipfile
from importlib import util
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from raysearch.cli.main import cli
from raysearch.deploy.wheel import DISTRIBUTION, build_wheel, requirements
from raysearch.errors import RaysearchError
from raysearch.runner.health_checks import _raysearch
from raysearch.runner.submission.submit import Submission, _order

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "deploy/ray/wheels/requirements.txt"
BARE = re.compile(
    r"""(?imx)
      (?: pip[3x]? | uv | conda | mamba | poetry | pdm | easy_install ) [\w.'"\s,-]{0,40}? \s ['"]?(?:install|add|download|wheel)\b
          [^\n\#`&|;]*? [\s'"\[(,] raysearch (?![\w./-])            # pip install raysearch, and with options or others before it
    | (?<![\w./-]) raysearch (?: \[ [\w,\s-]+ \] )? \s* [=~<>!]=            # raysearch==0.1.0, raysearch[gguf]>=0.1
    | (?<![\w./-]) raysearch \[ (?:gguf|server|dev|bench|docs|all)            # raysearch[server]
    | ^ \s* -? \s* ['"]? raysearch ['"]? \s* $                           # a line of a list of requirements
    | \b pip ["']? \s* [:=] \s* [\[(] [^\])]* (?<![\w./-]) raysearch (?![\w./-])            # runtime_env: {pip: [raysearch]}
    """
)


def _texts() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    found = [
        ROOT / name
        for name in listed.split("\0")
        if name and not name.startswith("tests/deploy/test_wheel.py")
    ]
    kinds = {
        ".py",
        ".md",
        ".yaml",
        ".yml",
        ".j2",
        ".sh",
        ".toml",
        ".txt",
        ".sbatch",
        ".ini",
        ".ipynb",
        ".cfg",
        "",
    }
    return [path for path in found if path.suffix in kinds and path.is_file()]


@pytest.mark.parametrize(
    ("line", "is_bare"),
    [
        ("pip install raysearch", True),
        ("RUN pip3 install --quiet -U 'raysearch' ray", True),
        ("python -m pip install ray raysearch==0.1.0", True),
        ('["pip", "install", "raysearch"]', True),
        ("uv pip install raysearch", True),
        ("uv add raysearch", True),
        ("pip download raysearch", True),
        ("raysearch==0.1.0", True),
        ("  - raysearch", True),
        ("raysearch[server]>=0.1", True),
        ('pip=(f"raysearch=={version}",)', True),
        ("runtime_env: {pip: [torch, raysearch]}", True),
        ("pip install raysearch-alignment", False),
        ("pip install -e . && raysearch doctor", False),
        ("pip install ./raysearch", False),
        ("pip install --no-index wheels/raysearch_alignment-0.1.0-py3-none-any.whl", False),
        ("if name == 'raysearch':", False),
    ],
)
def test_the_grep_knows_what_would_install_the_bare_name(line: str, is_bare: bool) -> None:
    assert bool(BARE.search(line)) is is_bare


def test_no_file_installs_the_bare_name() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0].strip()}"
        for path in _texts()
        for match in BARE.finditer(path.read_text())
    ]
    warnings = {"docs/explanation/security.md", "CHANGELOG.md", "README.md"}  # which say not to
    assert not [line for line in found if line.partition(":")[0] not in warnings]


def test_a_job_with_runtime_pip_takes_this_code_along_and_only_its_needs_from_an_index() -> None:
    given = {
        "store": "s3://b/r",
        "tracking_uri": None,
        "fail_on_error": 0.1,
        "tracked_children": 0,
        "quiet": True,
    }
    flags = {
        "verbose": False,
        "no_color": True,
        "env": (),
        "address": "http://head:8265",
    }
    order = _order(Submission(**given, **flags, runtime="pip"), "id", ["run", "job.yaml"], {})  # type: ignore[arg-type]
    assert order.modules == (ROOT / "raysearch",)
    assert " -m raysearch.cli run" in order.entrypoint
    assert order.pip == requirements()
    names = {re.split(r"[\[<>=!~ ]", one)[0] for one in order.pip}
    assert {"torch", "transformers", "pyarrow"} <= names
    assert not {"raysearch", DISTRIBUTION, "ray"} & names


def test_the_wheel_holds_this_code_and_installs_without_an_index(tmp_path: Path) -> None:
    name, content = build_wheel()
    assert build_wheel() == (name, content)
    (tmp_path / name).write_bytes(content)
    held = set(zipfile.ZipFile(tmp_path / name).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "raysearch"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert set(tracked.split()) <= held
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(tmp_path / "site"),
    ]
    subprocess.run([*pip, str(tmp_path / name)], check=True)
    code = "import raysearch; print(raysearch.__file__)"
    shown = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {code}",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    ).stdout
    assert shown.startswith(str(tmp_path / "site"))
    assert (tmp_path / "site/bin/raysearch").exists()


def test_files_for_ones_own_machines_come_with_the_wheel_and_hashes(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli,
        ["deploy", "render", "ray", str(ROOT / "jobs/quickstart.yaml"), "--to", str(tmp_path)],
        standalone_mode=False,
    )
    assert result.exception is None
    assert {p.name for p in (tmp_path / "ray/wheels").iterdir()} == {
        "requirements.txt",
        build_wheel()[0],
    }
    assert "--require-hashes --no-deps -r" in (tmp_path / "ray/cluster.yaml").read_text()
    shown = CliRunner().invoke(
        cli, ["deploy", "render", "ray", str(ROOT / "jobs/quickstart.yaml")], standalone_mode=False
    )
    assert shown.stdout == (tmp_path / "ray/cluster.yaml").read_text()


def test_what_nodes_install_is_pinned_by_hash_and_whole() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    pins = [re.fullmatch(r"([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
    assert all(pins)
    found = {pin[1]: pin[2] for pin in pins if pin}
    assert "://" not in REQUIREMENTS.read_text()
    assert not {"raysearch", DISTRIBUTION, "torch"} & found.keys()
    script = _script()
    constraints = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
    assert (
        found.items()
        <= {script._name(name): version for name, version in constraints.items()}.items()
    )
    assert {script._name(re.split(r"[\[<>=!~ ]", one)[0]) for one in requirements()} - {
        "torch"
    } <= found.keys()


def test_doctor_notices_somebody_elses_raysearch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _raysearch().startswith(f"{DISTRIBUTION} 0.")
    about = tmp_path / "raysearch-0.1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: raysearch\nVersion: 0.1.2\nSummary: Omni search.\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        RaysearchError, match=r"0\.1\.2 is installed too, from an index: that is somebody else's"
    ) as refused:
        _raysearch()
    assert "pip uninstall raysearch" in str(refused.value)
    assert "\n" not in str(refused.value)
    (about / "direct_url.json").write_text('{"url": "file:///src", "dir_info": {"editable": true}}')
    assert _raysearch().startswith(DISTRIBUTION)


def test_what_a_build_leaves_in_the_checkout_is_taken_for_no_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build_wheel()
    for name, folder in (
        (DISTRIBUTION, "raysearch_alignment.egg-info"),
        ("raysearch", "raysearch.egg-info"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "PKG-INFO").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    assert version(DISTRIBUTION) == version("raysearch") == "9.9"  # as Python itself sees it
    assert build_wheel() == before
    assert _raysearch().startswith(DISTRIBUTION)


def _script() -> ModuleType:
    spec = util.spec_from_file_location("hash_requirements", ROOT / "scripts/hash_requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
