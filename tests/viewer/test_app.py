"""The parts of the viewer's script can be read: short files of short lines, each of them used."""

from pathlib import Path

import raysearch.viewer
from raysearch.viewer.page import SCRIPTS

APP = Path(raysearch.viewer.__file__).parent / "app"
MOST_COLUMNS = 120
MOST_LINES = 400


def test_each_part_is_in_the_page() -> None:
    assert {path.stem for path in APP.glob("*.js")} == set(SCRIPTS)


def test_lines_and_files_are_short() -> None:
    long = [
        f"{path.name}:{number}"
        for path in APP.iterdir()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > MOST_COLUMNS
    ]
    assert long == []
    assert [p.name for p in APP.iterdir() if len(p.read_text().splitlines()) > MOST_LINES] == []
