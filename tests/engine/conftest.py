"""Of the engine's tests: a fixture that lets a module make self-checks once."""

import os
from pathlib import Path

import pytest

from tests.command import REMEMBERED


@pytest.fixture
def checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-check of a random model, which costs more than most tests, is made once in a
    session. It is found by the bytes of the model, its rows and raysearch's own files; a model that
    a test has changed has no digest (`worlds.digest_of`) and is checked each time."""
    monkeypatch.setenv("RAYSEARCH_CACHE", str(Path(os.environ[REMEMBERED]) / "engine"))
