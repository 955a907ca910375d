"""A model's description is remembered by what it follows from."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import raysearch as rs
from raysearch.core.model_source import ModelSource
from raysearch.engine.loading import load
from raysearch.engine.loading.inspect_model import KIND, inspect_model
from raysearch.engine.loading.model_summary import ModelSummary
from raysearch.errors import ModelError
from raysearch.problems import add_three

PLANTED = Path(__file__).parents[3] / "jobs" / "planted" / "model"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / KIND


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PLANTED, tmp_path / "model"))


def plain(summary: ModelSummary) -> ModelSummary:
    """The summary without what encodes and reads, which are other objects each time."""
    return replace(summary, encode=None, read=None)  # type: ignore[arg-type]


def test_a_description_that_was_remembered_is_the_one_that_was_made(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, components = ModelSource(str(folder)), ("residual", "head", "query")
    first = inspect_model(source, components)
    monkeypatch.setattr(load, "without_weights", lambda _: pytest.fail("made again"))
    second = inspect_model(source, components)
    assert plain(first) == plain(second)
    pairs = rs.draw_pairs(add_three.problem(), ("a", "total"), {"test": 8}, seed=1)
    encoded = [found.encode(pairs, ("a", "last"), ("a", "total")) for found in (first, second)]
    assert encoded[0] == encoded[1]
    assert first.read is not None
    assert second.read is not None
    assert {first.read(token) for token in (3, 4)} == {second.read(token) for token in (3, 4)}


def test_another_file_dtype_or_component_is_another_description(folder: Path, cache: Path) -> None:
    source = ModelSource(str(folder))
    assert inspect_model(source).layers == 4
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace('"num_hidden_layers": 4', '"num_hidden_layers": 3')
    )
    assert inspect_model(source).layers == 3
    assert inspect_model(replace(source, dtype="bfloat16")).item_bytes == 2
    assert [c.name for c in inspect_model(source, ("mlp_output",)).components] == ["mlp_output"]
    assert len(list(cache.iterdir())) == 4


def test_files_that_change_the_outputs_are_refused_though_the_model_is_known(
    folder: Path, cache: Path
) -> None:
    source = ModelSource(str(folder))
    assert not inspect_model(source).unused
    (folder / "old_weights.bin").write_bytes(b"")
    assert inspect_model(source).unused
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="adapter"):
        inspect_model(source)


def test_a_broken_entry_is_made_anew(folder: Path, cache: Path) -> None:
    source = ModelSource(str(folder))
    first = inspect_model(source)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for broken in (whole[:-20], b"", b"{}"):
        file.write_bytes(broken)
        assert plain(inspect_model(source)) == plain(first)
        assert file.read_bytes() == whole


def test_a_plan_of_a_known_model_imports_no_torch(folder: Path, cache: Path) -> None:
    inspect_model(ModelSource(str(folder)))
    script = (
        "import sys\n"
        "from raysearch.cli.plan import make_plan, plan_text\n"
        f"plan = make_plan('jobs/quickstart.yaml', ('model.path={folder}', 'pairs.test=32'))\n"
        "assert plan_text(plan, 'text')\n"
        "print({'torch', 'ray', 'mlflow', 'matplotlib', 'scipy.stats'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PLANTED.parents[2]
    )
    assert done.stdout == "set()\n", done.stderr
