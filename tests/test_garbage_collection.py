"""A command looks for garbage rarely; whoever imports raysearch has their own threshold."""

import gc
import subprocess
import sys

from raysearch.garbage_collection import NEW_OBJECTS

SCRIPT = """
import gc, sys
import raysearch
print(gc.get_threshold()[0])
from raysearch.cli.start import main
sys.argv = ["raysearch", "--version"]
try:
    main()
except SystemExit:
    pass
print(gc.get_threshold()[0])
"""


def test_only_a_command_changes_how_often_garbage_is_looked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    before, _, after = done.stdout.split("\n")[:3]
    default = subprocess.run(
        [sys.executable, "-c", "import gc; print(gc.get_threshold()[0])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert (before, after) == (default, str(NEW_OBJECTS))


def test_the_tests_look_rarely_too() -> None:
    assert gc.get_threshold()[0] == NEW_OBJECTS
