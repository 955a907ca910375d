"""The snippets of docs/how-to/from-pyvene.md run side by side, and both sides get the same."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "from-pyvene.md"
SECTIONS = re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)
ALIKE = 1e-4
TRAINED_ALIKE = 0.1
"""Two trainings that begin at random."""


def _snippets(section: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def _equal(theirs: Any, ours: Any, within: float) -> bool:
    if isinstance(theirs, torch.Tensor):
        return torch.allclose(theirs, ours, atol=within)
    if isinstance(theirs, float):
        return bool(theirs == pytest.approx(ours, rel=1e-5, abs=within))
    return bool(theirs == ours)


def test_the_page_has_ten_things_in_both() -> None:
    _, *numbered = SECTIONS
    assert [int(section.partition(".")[0]) for section in numbered] == list(range(1, 11))
    for section in numbered:
        assert section.count('<table class="sides">') >= 1
        assert "theirs" in section
        assert "ours" in section


def test_nine_snippets_get_the_same_from_both_sides(beside: dict[str, Any]) -> None:
    for section in SECTIONS[:10]:
        _run(section, beside)
        if section is not SECTIONS[0]:
            assert _equal(beside.pop("theirs"), beside.pop("ours"), ALIKE), section


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*planted.safetensors. read by nothing:UserWarning")
def test_a_trained_rotation_is_as_good_and_saved_the_same(beside: dict[str, Any]) -> None:
    """Some 15 s: two trainings."""
    *pairs, last = SECTIONS[10].partition("Both are 0.9 or more")
    _run(SECTIONS[0] + "".join(SECTIONS[9]), beside)
    _run(pairs[0], beside)
    theirs, ours = beside.pop("theirs"), beside.pop("ours")
    assert min(theirs, ours) >= 0.9
    assert _equal(theirs, ours, TRAINED_ALIKE)
    _run(last, beside)
    assert _equal(beside["theirs"], beside["ours"], ALIKE)


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the snippets, run in an empty folder with jobs/ beside."""
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.chdir(tmp_path)
    return {}


def _run(section: str, names: dict[str, Any]) -> None:
    for snippet in _snippets(section):
        exec(compile(snippet, str(PAGE), "exec"), names)
