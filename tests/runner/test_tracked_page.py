"""The page that a tracker is given stands alone, however many data its run has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from raysearch.report.results_table import read_results
from raysearch.runner.session.tracked_run import finish_tracking
from raysearch.storage.folder import Folder
from raysearch.tracking.tracker import Artifact
from raysearch.viewer import page as pages
from raysearch.viewer.page import FILE, FOLDER, data_in, write_page
from tests.viewer.books import few


class Taker:
    """A tracker that takes the content of the files at once, as they are there no longer."""

    run_id = why = None

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def describe(self, text: str) -> None:
        assert text

    def show_best(self, means: Mapping[str, float]) -> None:
        assert all(0 <= mean <= 1 for mean in means.values())

    def close(self, status: str, artifacts: list[Artifact], *rest: Any) -> bool:
        for given in artifacts:
            path = given if isinstance(given, Path) else given[0]
            if path.name == FILE:
                self.files[path.name] = path.read_text()
        return True


@pytest.mark.parametrize("most", [10**6, 0], ids=["inside", "beside"])
def test_it_has_its_data_inside(store: Folder, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    run = few(store)
    monkeypatch.setattr(pages, "MAX_INSIDE", most)
    write_page(run.folder)
    assert bool(run.folder.at(FOLDER).names()) == (most == 0)
    taker = Taker()
    finish_tracking(taker, "done", run, 0, (), read_results(run.folder))  # type: ignore[arg-type]
    _, inside = data_in(taker.files[FILE])
    assert {"index", "report"} <= set(inside)
