"""Checks that a problem refuses options in one line."""

import re
from collections.abc import Callable

import pytest

from raysearch.errors import JobError


def check_refused(make: Callable[[], object], problem: str, expected: str) -> None:
    """Checks that `make` raises one line that begins with the problem and matches `expected`."""
    with pytest.raises(JobError) as caught:
        make()
    said = str(caught.value)
    assert said.startswith(f"{problem}: ")
    assert "\n" not in said
    assert re.search(expected, said)
