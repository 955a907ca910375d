"""The faults that `make mutants` plants are still faults of this code, and the script sees what it
says it sees."""

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def _script() -> ModuleType:
    spec = util.spec_from_file_location("mutants", ROOT / "scripts/mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules["mutants"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()


@pytest.mark.parametrize("number", range(len(SCRIPT.MUTANTS)))
def test_a_planted_fault_still_fits_the_code_and_names_tests_that_are_there(number: int) -> None:
    mutant = SCRIPT.MUTANTS[number]
    text = SCRIPT.planted(mutant, ROOT)
    assert text != (ROOT / "raysearch" / mutant.file).read_text()
    compile(text, mutant.file, "exec")
    assert mutant.tests
    for name in mutant.tests:
        assert (ROOT / "tests" / name).exists()


def test_there_are_65_faults_and_no_two_are_one() -> None:
    assert len({(m.file, m.old, m.new) for m in SCRIPT.MUTANTS}) == len(SCRIPT.MUTANTS) == 65


@pytest.mark.parametrize(("times", "count"), [("a b", 0), ("a + 1, a + 1", 2)])
def test_a_text_that_is_not_there_exactly_once_is_refused(
    tmp_path: Path, times: str, count: int
) -> None:
    (tmp_path / "raysearch").mkdir()
    (tmp_path / "raysearch/x.py").write_text(times)
    mutant = SCRIPT.Mutant("x.py", "a + 1", "a - 1", ("test_x.py",))
    with pytest.raises(ValueError, match=f"has {count} times 'a \\+ 1'; need once"):
        SCRIPT.planted(mutant, tmp_path)


@pytest.mark.parametrize(("test", "seen"), [("assert one() == 2", True), ("assert one()", False)])
def test_a_fault_is_caught_by_a_test_that_fails_and_is_out_again_then(
    tmp_path: Path, test: str, seen: bool
) -> None:
    package, tests = tmp_path / "raysearch", tmp_path / "tests"
    for folder in (package, tests):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    (package / "x.py").write_text("def one() -> int:\n    return 1 + 1\n")
    (tests / "test_x.py").write_text(
        f"from raysearch.x import one\n\n\ndef test_one():\n    {test}\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    mutant = SCRIPT.Mutant("x.py", "1 + 1", "1 - 1 + 3", ("test_x.py",))
    assert SCRIPT.caught(mutant, tmp_path) is seen
    assert (package / "x.py").read_text() == "def one() -> int:\n    return 1 + 1\n"


def test_tests_that_do_not_end_have_caught_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("raysearch", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "raysearch/x.py").write_text("one = 1\n")
    (tmp_path / "tests/test_x.py").write_text("import time\n\ntime.sleep(60)\n")
    monkeypatch.setattr(SCRIPT, "SECONDS", 0.1)
    mutant = SCRIPT.Mutant("x.py", "one = 1", "one = 2", ("test_x.py",))
    assert SCRIPT.caught(mutant, tmp_path) is None
    assert (tmp_path / "raysearch/x.py").read_text() == "one = 1\n"


def test_tests_that_are_not_there_are_no_caught_fault(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="test_missing"):
        SCRIPT.passes(tmp_path, ["test_missing.py"])
