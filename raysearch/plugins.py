"""What installed packages add to raysearch, by entry points of a group such as
`raysearch.proposers`.

Invariants: a name is looked up in what the installed packages declare, and only the package of that
name is imported; no package takes the place of a name of ours.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from raysearch.errors import JobError


def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by their names, in alphabetical order. Nothing is imported."""
    found = entry_points(group=group)
    return {name: found[name] for name in sorted(found.names)}


def package_of(point: EntryPoint) -> str:
    """The name and version of the package that declares an entry point."""
    return (
        "an installed package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    )


def load(group: str, name: str, key: str) -> Any:
    """Imports what the entry point `name` of a group refers to. `key`: of the job, for errors.

    Raises: JobError where no installed package declares it, or it cannot be imported.
    """
    point = installed(group).get(name)
    if point is None:
        raise JobError(f"{key}: no installed package has {name!r} (an entry point of {group})")
    try:
        return point.load()
    except Exception as e:
        raise JobError(
            f"{key}: {name} of {package_of(point)} cannot be imported ({point.value}): "
            f"{type(e).__name__}: {e}"
        ) from e
