"""Errors of a user's code that are no Exception, or whose text cannot be made, are one line."""

import json
import sys
from pathlib import Path

import pytest

from raysearch.cli.main import main
from raysearch.visible_text import one_line, visible

NO_EXCEPTION = "class E(BaseException): ...\ndef f(): raise E('stop')\n"
NO_TEXT = """
class E(Exception):
    def __str__(self):
        raise ValueError


def f():
    raise E
"""


@pytest.mark.parametrize("key", ["problem.use", "model.path"])
@pytest.mark.parametrize(
    ("code", "exit_code", "says"),
    [
        (NO_EXCEPTION, 1, "code that the job names raised E: stop; it must raise an Exception"),
        ("def f(): raise GeneratorExit", 1, "raised GeneratorExit: ; it must raise an Exception"),
        (NO_TEXT, 2, "raised E: (its text cannot be made: ValueError)"),
    ],
)
def test_an_error_of_a_kind_that_nobody_expects_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
    code: str,
    exit_code: int,
    says: str,
) -> None:
    (tmp_path / "mine.py").write_text(code)
    keys = {
        "name": "hostile",
        "model": {"path": "mine.py:f" if key == "model.path" else "some/hub-id"},
        "problem": {"use": "raysearch.problems.add_three" if key == "model.path" else "mine.py:f"},
        "answer": {"compare": "class" if key == "model.path" else "first_token"},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(keys))
    monkeypatch.setattr(sys, "argv", ["raysearch", "plan", str(tmp_path / "job.yaml")])
    with pytest.raises(SystemExit) as end:
        main()
    *_, last = said = capsys.readouterr().err.splitlines()
    assert end.value.code == exit_code
    assert last.startswith("raysearch: ")
    assert says in last
    assert len([line for line in said if line.startswith("raysearch: ")]) == 1


def test_what_cannot_be_shown_is_said_so() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    assert visible(Mute()) == one_line(Mute()) == "(its text cannot be made: RuntimeError)"
