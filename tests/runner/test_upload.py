"""What a job brings along to a cluster: everything that it names, nothing that it does not, and no
way out."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysearch.errors import JobError, PairsError
from raysearch.job import Job
from raysearch.job.job_files import kept_beside, named_files
from raysearch.runner.submission.upload import LIMIT, Upload, pack
from tests.cli.conftest import QUICKSTART, ROOT


def _job(folder: Path, **changes: Any) -> Path:
    job: dict[str, Any] = {
        "name": "mine",
        "model": {"path": "org/model"},
        "problem": {"use": "raysearch.problems.add_three"},
    }
    for room, keys in changes.items():
        job[room] = keys
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def _unpacked(upload: Upload, folder: Path) -> Job:
    """The job as the driver on the cluster reads it."""
    upload.write(folder / "job.zip")
    with zipfile.ZipFile(folder / "job.zip") as zipped:
        zipped.extractall(folder / "there")
    return Job.load(folder / "there/job.yaml")


def test_a_small_model_beside_the_job_goes_along_and_the_job_there_asks_the_same(
    tmp_path: Path,
) -> None:
    here = Job.load(QUICKSTART, ["pairs.test=8"])
    upload = pack(QUICKSTART, ["pairs.test=8"], [], [])
    there = _unpacked(upload, tmp_path)
    assert Path(there.model.path) == tmp_path / "there/files/planted/model"
    names = {p.name for p in Path(there.model.path).iterdir()}
    assert names == {p.name for p in (ROOT / "jobs/planted/model").iterdir()}
    assert kept_beside(there, tmp_path / "there") == upload.job
    assert there.model_copy(update={"model": here.model}) == here


def test_code_brings_what_has_its_name_and_what_else_it_reads_is_named(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    for name in ("nets/net.py", "nets/net.safetensors", "nets/other.bin", "mine.py", "words.txt"):
        (tmp_path / name).write_text("x")
    job = _job(tmp_path, model={"path": "nets/net.py:made"}, problem={"use": "mine.py:problem"})
    assert set(pack(job, [], [], []).files) == {
        "files/nets/net.py",
        "files/nets/net.safetensors",
        "files/mine.py",
    }
    more = pack(job, [], [], [tmp_path / "words.txt", tmp_path / "nets"])
    assert {"files/words.txt", "files/nets/other.bin"} < set(more.files)
    there = _unpacked(more, tmp_path)
    assert [Path(f.path).is_file() for f in named_files(there)] == [True, True]


def test_pairs_bring_their_tensors_and_may_not_lead_outside(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "x.safetensors").write_text("x")

    def pairs(tensor: str) -> Path:
        (data / "pairs.jsonl").write_text(
            json.dumps({"base": {"tensor": tensor}, "source": {"tensor": tensor}})
        )
        (tmp_path / "job").mkdir(exist_ok=True)
        return _job(tmp_path / "job", problem={"pairs": "../data/pairs.jsonl"})

    upload = pack(pairs("x.safetensors#a[1]"), [], [], [])
    there = Path(_unpacked(upload, tmp_path).problem.pairs or "")
    assert there.is_relative_to(tmp_path / "there/files")
    assert (there.parent / "x.safetensors").is_file()
    (tmp_path / "secret.safetensors").write_text("x")
    for way_out in ("../secret.safetensors#a", f"{tmp_path}/secret.safetensors#a"):
        with pytest.raises(PairsError, match="leads out of the folder of the pairs"):
            pack(pairs(way_out), [], [], [])


def test_a_link_that_leads_out_of_a_model_is_refused_and_one_within_is_followed(
    tmp_path: Path,
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "also.json").symlink_to("config.json")
    (model / ".git").mkdir()
    (model / ".git/secret").write_text("x")
    job = _job(tmp_path, model={"path": "model"})
    assert set(pack(job, [], [], []).files) == {"files/model/config.json", "files/model/also.json"}
    (tmp_path / "secret").write_text("x")
    (model / "weights.safetensors").symlink_to("../secret")
    with pytest.raises(JobError, match=r"weights\.safetensors is a link to .*secret"):
        pack(job, [], [], [])


def test_too_much_is_refused_before_it_is_sent_and_the_large_files_are_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    with (tmp_path / "model/weights.safetensors").open("wb") as file:
        file.truncate(LIMIT)  # a hole: nothing is written
    job = _job(tmp_path, model={"path": "model"})
    with pytest.raises(
        JobError, match=r"are 99\.0 MiB.*weights\.safetensors \(99\.0 MiB\).*absolute model\.path"
    ):
        pack(job, [], [], [])


def test_what_is_said_to_be_on_the_nodes_is_left_there(tmp_path: Path) -> None:
    sae = {"subspaces": [{"sae": {"path": "/shared/saes/layer_{layer}.safetensors"}}]}
    job = _job(tmp_path, model={"path": "/shared/models/m"}, space=sae)
    with pytest.raises(
        JobError, match=r"space\.subspaces\.0\.sae\.path: there is no file .*--on-nodes"
    ):
        pack(job, [], [], [])
    with pytest.raises(JobError, match="--on-nodes shared: give the absolute path"):
        pack(job, [], [Path("shared")], [])
    upload = pack(job, [], [Path("/shared")], [])
    assert not upload.files
    assert [f.path for f in named_files(upload.job)] == [
        "/shared/models/m",
        "/shared/saes/layer_{layer}.safetensors",
    ]


def test_all_layers_of_an_autoencoder_go_along(tmp_path: Path) -> None:
    for layer in (0, 1):
        (tmp_path / f"layer_{layer}.safetensors").write_text("x")
    job = _job(
        tmp_path, space={"subspaces": ["full", {"sae": {"path": "layer_{layer}.safetensors"}}]}
    )
    upload = pack(job, [], [], [])
    assert set(upload.files) == {"files/layer_0.safetensors", "files/layer_1.safetensors"}
    assert upload.job.space.sae_paths == ("files/layer_{layer}.safetensors",)


def test_pairs_in_a_bucket_stay_there(tmp_path: Path) -> None:
    upload = pack(
        _job(tmp_path, problem={"pairs": "s3://bucket/pairs.jsonl?region=eu"}), [], [], []
    )
    assert not upload.files
    assert upload.job.problem.pairs == "s3://bucket/pairs.jsonl?region=eu"
    assert _unpacked(upload, tmp_path).problem.pairs == upload.job.problem.pairs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"problem": {"pairs": "s3://me:hidden@bucket/pairs.jsonl"}},
            r"problem\.pairs: s3://bucket/pairs\.jsonl: held a password",
        ),
        (
            {"space": {"subspaces": [{"sae": {"path": "s3://bucket/sae.safetensors"}}]}},
            r"subspaces\.0\.sae\.path: .*only problem\.pairs",
        ),
    ],
)
def test_of_what_lies_in_a_bucket_only_pairs_are_read_and_no_password(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(JobError, match=said) as refused:
        pack(_job(tmp_path, **changes), [], [], [])
    assert "hidden" not in str(refused.value)


def test_equal_contents_make_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x")
    job = _job(tmp_path, problem={"use": "mine.py:problem"})

    def packed(*sets: str) -> tuple[bytes, str]:
        upload = pack(job, sets, [], [])
        upload.write(tmp_path / "job.zip")
        return (tmp_path / "job.zip").read_bytes(), upload.digest

    first = packed()
    (tmp_path / "mine.py").touch()
    assert packed() == first
    assert packed("name=other", "resources.rows=8")[1] == first[1]
    assert packed("pairs.seed=1")[1] != first[1]
    (tmp_path / "mine.py").write_text("y")
    assert packed()[1] != first[1]
