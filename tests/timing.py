"""A pytest plugin: the processor time of each test goes into the JUnit file, and skipped tests are
listed at the end by their reason.

Invariants: processor time is that of the test with its fixtures, user and system, of this process,
of the children that it waited for and of the commands that it had forked; a fixture that several
tests share counts for the first of them.
"""

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.command import forks_cpu_seconds

CPU = "cpu_seconds"
"""The property of a test case that `scripts/slowest_tests.py` reads."""
_began = pytest.StashKey[float]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_began] = _cpu_seconds()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    finally:
        item.user_properties.append((CPU, f"{_cpu_seconds() - item.stash[_began]:.3f}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in skips_by_reason(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line)


def skips_by_reason(reports: list[pytest.TestReport]) -> list[str]:
    """One line for each reason, the most frequent first: `skipped: 5 x no slurmctld on this
    machine`."""
    reasons = Counter(_reason(report) for report in reports)
    return [
        f"skipped: {n} x {reason}"
        for reason, n in sorted(reasons.items(), key=lambda r: (-r[1], r[0]))
    ]


def _reason(report: pytest.TestReport) -> str:
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return said.removeprefix("Skipped: ")


def _cpu_seconds() -> float:
    times = os.times()
    return (
        times.user
        + times.system
        + times.children_user
        + times.children_system
        + forks_cpu_seconds()
    )
