"""`deploy render`: what is in deploy/ is what it writes, what a user types stays what it is, what
cannot travel is refused."""

import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raysearch.deploy.launchers import Compose, Kuberay, RayUp, Slurm
from raysearch.deploy.render import TEMPLATES, render
from raysearch.deploy.settings import for_compose, for_kuberay, for_ray, for_slurm
from raysearch.errors import JobError
from tests.cli.conftest import QUICKSTART, ROOT, Shell

DEPLOY = ROOT / "deploy"
TRAPS = ["'", '"', "$(false)", "`false`", "{{", "\\"]
IN_THE_IMAGE = "/opt/raysearch/jobs/planted/model"


def test_the_files_in_deploy_are_what_render_writes_for_the_quickstart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    job = Path("jobs/quickstart.yaml")
    files = {
        **render(for_slurm(job, Slurm()), "slurm"),
        **render(for_kuberay(job, Kuberay(model_path=IN_THE_IMAGE)), "kuberay"),
        **render(for_compose(job, Compose(), Path("deploy")), "compose"),
        **render(for_ray(job, RayUp()), "ray"),
    }
    assert {n for n, t in files.items() if (DEPLOY / n).read_text() != t} == set(), (
        "`make render` writes them"
    )
    folders = [DEPLOY / target for target in ("slurm", "kuberay", "compose", "ray")]
    there = {
        p.relative_to(DEPLOY).as_posix()
        for folder in folders
        for p in folder.rglob("*")
        if p.is_file()
    }
    assert there - {"compose/.env"} == {
        n for n in files if n.split("/")[0] not in ("prometheus", "grafana")
    }


def test_a_command_prints_a_script_or_writes_it(shell: Shell) -> None:
    printed = shell(
        "deploy", "render", "slurm", str(QUICKSTART), "--time", "00:10:00", "--partition", "gpu"
    )
    assert printed.returncode == 0, printed.stderr
    assert {"#SBATCH --time=00:10:00", "#SBATCH --partition=gpu"} <= set(
        printed.stdout.splitlines()
    )
    written = shell(
        "deploy",
        "render",
        "slurm",
        str(QUICKSTART),
        "--time",
        "00:10:00",
        "--partition",
        "gpu",
        "--to",
        "here",
    )
    (path,) = written.stdout.split()
    assert (shell.folder / path).read_text() == printed.stdout
    assert os.access(shell.folder / path, os.X_OK)
    several = shell("deploy", "render", "compose", str(QUICKSTART))
    assert "# ---- compose/compose.yaml" in several.stdout


@given(
    st.text(  # no @: what stands before it in a URI is refused, as it may be a password
        st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="@"), max_size=20
    ),
    st.sampled_from(["'", '"', "$(false)", "`false`", "{{", "\\"]),
)
def test_what_a_user_types_reaches_the_driver_as_it_is(text: str, trap: str) -> None:
    name = f"x{text}{trap}"
    place = Slurm(sets=("resources.rows=7",), model_path=name, store=name)
    script = render(for_slurm(QUICKSTART, place), "slurm")["slurm/raysearch.sbatch"]
    lines = [li for li in script.splitlines() if li.startswith(("options=(", "store="))]
    said = subprocess.run(
        ["bash", "-euc", "SLURM_JOB_ID=7\n" + "\n".join(lines) + '\nprintf "%s\\0" "${options[@]}" '
                                                                 '"$store"'],
        capture_output=True, text=True, check=True,
    ).stdout.split("\0")[:-1]  # fmt: skip
    assert said == ["--set", "resources.rows=7", "--set", f"model.path={name}", f"{name}/slurm-7"]
    files = render(
        for_kuberay(QUICKSTART, Kuberay(model_path=name, image=name, store=f"s3://{name}")),
        "kuberay",
    )
    job = yaml.safe_load(files["kuberay/job/rayjob.yaml"])["spec"]
    assert shlex.split(job["entrypoint"])[-1] == f"model.path={name}"
    assert (
        job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] == name
    )
    literals = yaml.safe_load(files["kuberay/base/kustomization.yaml"])["configMapGenerator"][0][
        "literals"
    ]
    assert literals[0] == f"RAYSEARCH_STORE=s3://{name}"
    compose = yaml.safe_load(
        render(for_compose(QUICKSTART, Compose(image=name), None), "compose")[
            "compose/compose.yaml"
        ]
    )
    assert compose["services"]["worker"]["image"] == name


def test_what_the_job_asks_of_a_replica_becomes_nodes_and_gpus() -> None:
    sets = ("resources.replicas=16", "resources.gpus=2", "resources.cpus=12")
    script = render(for_slurm(QUICKSTART, Slurm(sets=sets, gpus=8)), "slurm")[
        "slurm/raysearch.sbatch"
    ]
    assert {"#SBATCH --nodes=4", "#SBATCH --gres=gpu:8", "#SBATCH --cpus-per-task=13"} <= set(
        script.splitlines()
    )
    script = render(for_slurm(QUICKSTART, Slurm(sets=("resources.gpus=0",))), "slurm")[
        "slurm/raysearch.sbatch"
    ]
    assert "--gres" not in script


def test_a_job_and_the_files_it_names_travel_to_kubernetes(tmp_path: Path) -> None:
    job = _job(tmp_path, "sub/mine.py:problem")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.py").write_text("# mine\n")
    files = render(for_kuberay(job, Kuberay()), "kuberay")
    assert files["kuberay/base/files/sub/mine.py"] == "# mine\n"
    maps = yaml.safe_load(files["kuberay/base/kustomization.yaml"])["configMapGenerator"]
    assert "sub--mine.py=files/sub/mine.py" in maps[2]["files"]
    pod = yaml.safe_load(files["kuberay/job/rayjob.yaml"])["spec"]["rayClusterSpec"][
        "headGroupSpec"
    ]["template"]["spec"]
    assert {"key": "sub--mine.py", "path": "sub/mine.py"} in pod["volumes"][0]["configMap"]["items"]


@pytest.mark.parametrize(
    ("use", "content", "said"),
    [
        ("../mine.py:problem", b"", "does not lie in the job's folder"),
        ("mine.py:problem", b"#" * 2**20, "a ConfigMap holds 1048576"),
        ("mine.py:problem", b"\xff", "no text that a ConfigMap could hold"),
    ],
)
def test_what_cannot_travel_is_refused_in_one_line(
    use: str, content: bytes, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / use.partition(":")[0]).write_bytes(content)
    with pytest.raises(JobError, match=said):
        for_kuberay(_job(folder, use), Kuberay())


def test_a_model_that_pods_do_not_have_is_refused_in_one_line(shell: Shell) -> None:
    done = shell("deploy", "render", "kuberay", str(QUICKSTART))
    assert done.returncode == 2
    assert "--model-path" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_whoever_has_no_repository_has_the_templates(tmp_path: Path) -> None:
    for name in ("raysearch", "pyproject.toml", "README.md", "LICENSE", "deploy"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(
            source, tmp_path / name, **({"symlinks": True} if source.is_dir() else {})
        )
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        "out",
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "out").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    templates = {
        f"raysearch/deploy/templates/{p.relative_to(TEMPLATES).as_posix()}"
        for p in TEMPLATES.rglob("*")
        if p.is_file()
    }
    assert len(templates) > 20
    assert templates <= names


def _job(folder: Path, use: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(
        f"name: mine\nmodel: {{path: owner/model}}\nproblem: {{use: {use!r}}}\nspace: "
        f"{{positions: [last], variables: [x]}}\n"
    )
    return path
