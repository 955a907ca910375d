"""Files of pairs in an object store: read as from disk, with the tensors that they name; errors
name the URI and no copy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from raysearch.causal import Split
from raysearch.errors import PairsError
from raysearch.problems import read_pairs
from raysearch.problems.remote_pairs import sample_at
from raysearch.storage.open_folder import open_folder
from tests.s3 import S3, SECRET

COUNTS: dict[Split, int] = {"test": 3, "fit": 0, "holdout": 1}


def _line(side: Any) -> dict[str, Any]:
    return {
        "base": side,
        "source": side,
        "answers": {"base": " a", "source": " b"},
        "counterfactual": {"v": " b"},
    }


def _put(s3: S3, tmp_path: Path, side: Any, **tensors: bytes) -> str:
    """The URI of four pairs in a folder of this test's own."""
    folder = open_folder(s3.uri(tmp_path.name))
    folder.write("pairs.jsonl", "\n".join(json.dumps(_line(side)) for _ in range(4)).encode())
    for name, content in tensors.items():
        folder.at("tensors").write(f"{name}.safetensors", content)
    return s3.uri(f"{tmp_path.name}/pairs.jsonl")


def test_pairs_in_a_bucket_are_those_that_the_file_on_disk_has(s3: S3, tmp_path: Path) -> None:
    uri = _put(s3, tmp_path, {"text": "x y", "positions": {"x": [0, 1]}})
    local = tmp_path / "pairs.jsonl"
    local.write_bytes(open_folder(s3.uri(tmp_path.name)).read("pairs.jsonl"))
    found = [sample_at(place, COUNTS, 0).pairs for place in (uri, str(local))]
    assert found == [read_pairs(local, COUNTS, 0)] * 2


def test_tensors_that_they_name_come_along(s3: S3, tmp_path: Path) -> None:
    tensors = save({"x": np.arange(3, dtype=np.float32)})
    uri = _put(s3, tmp_path, {"tensor": "tensors/a.safetensors#x"}, a=tensors)
    assert len(sample_at(uri, COUNTS, 0).pairs) == 4


@pytest.mark.parametrize(
    ("side", "said"),
    [
        ({"text": 3}, r"s3://bucket/\S+/pairs\.jsonl: line 1: "),
        (
            {"tensor": "tensors/none.safetensors#x"},
            r"no file s3://bucket/\S+/tensors/none\.safetensors",
        ),
        ({"tensor": "../other/a.safetensors#x"}, r"leads out of that folder"),
    ],
)
def test_what_is_wrong_is_said_of_the_uri(s3: S3, tmp_path: Path, side: Any, said: str) -> None:
    uri = _put(s3, tmp_path, side)
    with pytest.raises(PairsError, match=said) as refused:
        sample_at(uri, COUNTS, 0)
    assert SECRET not in str(refused.value)


def test_a_file_that_is_not_there_is_said(s3: S3, tmp_path: Path) -> None:
    with pytest.raises(PairsError, match=r"problem\.pairs: there is no file s3://bucket/"):
        sample_at(s3.uri(f"{tmp_path.name}/none.jsonl"), COUNTS, 0)
