"""A pytest plugin: which tests are slow, and how files of tests are shared among the workers of
pytest-xdist, whatever `--dist` says.

    pytestmark = pytest.mark.slow                               # all of a file: `make test` leaves it to `make test-rest`
    @pytest.mark.slow_unless(family=LAYOUTS, dtype=["float32"]) # of a grid: `make test` walks these rows and columns of it

Invariants: each test is in `make test` (not slow) or in `make test-rest` (slow). The tests of a
file run on one worker, one after the other, so that what its fixtures start (a Slurm, a database, a
Ray) is started once; the longest file goes first, so that all workers end at about the same time;
all workers agree on the order.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
"""`make test` and the like leave their timings here, in a JUnit file each: junit.xml,
junit-rest.xml, junit-ci.xml."""
KNOWN = ROOT / "tests" / "durations.json"
"""Seconds by file where no timings are left, as in a fresh checkout: only of files that take long.
`make durations` writes it."""
UNKNOWN = 3.0
"""Seconds of a file that nobody has timed."""
LONG = 5.0
"""Seconds of a file from which on KNOWN names it."""
IN_CI = (
    *(f"tests/deploy/test_{kind}.py" for kind in ("files", "postgres", "release", "render")),
    "tests/tracking/",
    "tests/viewer/",
)
"""The files and rooms whose slow tests .ci/run runs too: each test in them is marked `ci`. A search
on Slurm is left out, for it takes as long as the others together."""


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Returns a scheduler that keeps files whole and takes them in the order of collection.

    Its default order, by the number of tests, would put a file of a single long test last.
    """
    from xdist.scheduler import LoadFileScheduling

    class WholeFiles(LoadFileScheduling):
        """Runs what a worker that has crashed leaves, but for the test that it crashed in.

        xdist's own gives that test to the next worker, which crashes too, and waits for ever for a
        worker that has got a file without a test to run.
        """

        def remove_node(self, node: Any) -> str | None:
            files = self.assigned_work.pop(node)
            left = [(file, test) for file, tests in files.items() for test in tests]
            left = [(file, test) for file, test in left if not files[file][test]]
            if not left:
                return None
            (_, crashed), *later = left
            for file, test in later:
                self.workqueue.setdefault(file, {})[test] = False
            for other in self.nodes:
                self._reschedule(other)
            return str(crashed)

        def _reschedule(self, node: Any) -> None:
            """As xdist's, until the worker has what it needs: it begins a test once it knows the
            next one, or that there is none."""
            while not node.shutting_down and self._pending_of(self.assigned_work[node]) <= 2:
                if self.workqueue:
                    self._assign_work_unit(node)
                else:
                    node.shutdown()

    config.option.loadscopereorder = False
    return WholeFiles(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the slow cells of grids and what CI runs, before `-m` chooses. On a worker the longest
    files come first; else the order stays as it was."""
    cells: Counter[str] = Counter()
    """How many cells each mark of each test keeps."""
    for item in items:
        if item.nodeid.startswith(IN_CI):
            item.add_marker("ci")
        test, kept = item.nodeid.partition("[")[0], []
        for mark in item.iter_markers("slow_unless"):
            kept.append(_is_kept(item, mark.kwargs))
            cells[f"{test}: slow_unless({mark.kwargs})"] += kept[-1]
        if kept and not any(kept):
            item.add_marker("slow")
    idle = [mark for mark, count in cells.items() if not count]
    if idle and not any("::" in arg for arg in config.args):  # else a part of a grid was asked
        raise pytest.UsageError("; ".join(f"{mark} keeps no cell of its grid" for mark in idle))
    if hasattr(config, "workerinput"):
        seconds = known_seconds(KNOWN, BUILD)
        items.sort(key=lambda item: -seconds.get(item.nodeid.partition("::")[0], UNKNOWN))


def _is_kept(item: pytest.Item, kept: dict[str, Iterable[Any]]) -> bool:
    """Whether each parameter that `kept` names has one of the values there; a parameter that the
    test does not have is passed over."""
    has: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    return all(has[name] in values for name, values in kept.items() if name in has)


def known_seconds(table: Path, build: Path) -> dict[str, float]:
    """Returns the seconds that each file of tests takes: as `table` says, or as the JUnit files in
    `build` say where they know of it."""
    known: dict[str, float] = json.loads(table.read_text())
    timed: dict[str, float] = {}
    for timings in build.glob("junit*.xml"):
        for file, took in seconds_by_file(timings).items():
            timed[file] = max(took, timed.get(file, 0.0))
    return known | timed


def seconds_by_file(junit: Path) -> dict[str, float]:
    """Returns the seconds on the clock of each file of tests (`tests/cli/test_runs.py`) in a JUnit
    file; none if it is no whole file."""
    try:
        cases = ElementTree.parse(junit).getroot().iter("testcase")
    except (
        ElementTree.ParseError
    ):  # a session that was killed while it wrote: its timings are no more than a hint
        return {}
    seconds: defaultdict[str, float] = defaultdict(float)
    for case in cases:
        seconds[_file_of(case.get("classname", ""))] += float(case.get("time", 0))
    return dict(seconds)


def _file_of(classname: str) -> str:
    """`tests.proposers.test_proposers.TestRefine` stands in tests/proposers/test_proposers.py."""
    parts = classname.split(".")
    module = next((i for i, part in enumerate(parts) if part.startswith("test_")), len(parts) - 1)
    return "/".join(parts[: module + 1]) + ".py"


def main() -> None:
    """Writes KNOWN anew from the timings in BUILD: the longest file first."""
    seconds = known_seconds(KNOWN, BUILD)
    here = {
        file: round(took)
        for file, took in seconds.items()
        if took >= LONG and (ROOT / file).exists()
    }
    KNOWN.write_text(
        json.dumps(dict(sorted(here.items(), key=lambda kept: (-kept[1], kept[0]))), indent=1)
        + "\n"
    )


if __name__ == "__main__":
    main()
