"""Prints the oldest versions that pyproject.toml allows, as pip takes them; `make test-floors`
installs these.

    python scripts/floors.py gguf peft      # the dependencies, and those of two extras

Invariants: a lower bound is the version that is installed, so that a bound which was never true
fails here, not on a user's machine. What a dependency needs in turn, pip resolves.
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
ELSEWHERE = {"torch"}
"""Packages whose oldest version `make test-floors` does not take: indexes offer an old torch as a
CUDA build alone, which is gigabytes."""
_BOUND = re.compile(r"(?P<name>[\w.-]+)(?P<extras>\[[\w,]+\])?>=(?P<floor>[\w.]+)")


def floors(project: Path, extras: list[str]) -> list[str]:
    """Returns `name==version` for each dependency in `project` and in its `extras`.

    Raises: ValueError where a dependency has no lower bound, or something beside it.
    """
    table = tomllib.loads(project.read_text())["project"]
    asked = list(table["dependencies"])
    for extra in extras:
        asked += table["optional-dependencies"][extra]
    return [_floor(text) for text in asked if not text.startswith(tuple(ELSEWHERE))]


def _floor(requirement: str) -> str:
    found = _BOUND.fullmatch(requirement)
    if found is None:
        raise ValueError(
            f"{requirement!r} in pyproject.toml has no lower bound alone: NAME>=VERSION"
        )
    return f"{found['name']}{found['extras'] or ''}=={found['floor']}"


if __name__ == "__main__":
    print("\n".join(floors(PROJECT, sys.argv[1:])))
