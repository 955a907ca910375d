"""The proposers that a job names by one word: those of raysearch, and those of installed packages.

Invariants: `READY` is the only list of ours; a package adds one by an entry point of the group
`raysearch.proposers`, and is imported when a job that names it runs, never to list or look.
"""

from importlib.metadata import EntryPoint
from inspect import signature
from typing import Any

from raysearch.plugins import installed_plugins, package_of
from raysearch.proposers.attribution import Attribution
from raysearch.proposers.base import Exhaustive, Proposer
from raysearch.proposers.refine import Refine
from raysearch.proposers.smallest_subspace import SmallestSubspace

GROUP = "raysearch.proposers"
READY: dict[str, type[Proposer]] = {
    made.name: made for made in (Exhaustive, Refine, SmallestSubspace, Attribution)
}
"""The proposers of raysearch, by the name that a job gives them."""


def installed_proposers() -> dict[str, EntryPoint]:
    """Returns the proposers of installed packages, by name; none of them takes a name of ours."""
    return {name: point for name, point in installed_plugins(GROUP).items() if name not in READY}


def names() -> list[str]:
    """Returns the names that `propose.use` takes, those of installed packages last."""
    return [*READY, *installed_proposers()]


def schema_of_names() -> dict[str, Any]:
    """Returns the JSON Schema of `propose.use`, with its description."""
    lines = [f"{name}: {ready.description}" for name, ready in READY.items()]
    lines += [
        f"{name}: of the package {package_of(point)}"
        for name, point in installed_proposers().items()
    ]
    return {
        "anyOf": [{"enum": names()}, {"type": "string", "pattern": ":"}],
        "description": f"{'; '.join(lines)}; or `my_file.py:Proposer`.",
    }


def options_words() -> str:
    """Names the options of each proposer of ours that has some."""
    taken = {name: list(signature(ready).parameters)[1:-1] for name, ready in READY.items()}
    return "; ".join(f"{name}: {', '.join(of)}" for name, of in taken.items() if of)


def family_words(use: object, tested: int) -> str:
    """Says over which hypotheses the error level of a job holds whose `propose.use` is `use`."""
    ready = READY.get(str(use))
    lines = Proposer.family_words if ready is None else ready.family_words
    return lines(tested)
