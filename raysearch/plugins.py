"""Entry points by which installed packages add to raysearch.

A package declares, for instance, in its pyproject.toml

    [project.entry-points."raysearch.featurizers"]
    twist = "my_package.twist:TWIST"

Invariants: a name stands for one thing. Two packages that claim a name are refused where that name
is used, and so is a package that cannot be imported: it stops nobody else. A name of raysearch
itself is never theirs.
"""

from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from raysearch.errors import JobError
from raysearch.visible_text import one_line


def installed_plugins(group: str) -> dict[str, EntryPoint]:
    """Returns the entry points of a group by name, in alphabetical order. Imports nothing."""
    found = entry_points(group=group)
    return {name: found[name] for name in sorted(found.names)}


def package_of(point: EntryPoint) -> str:
    """Returns the name and version of the package that declares an entry point."""
    dist = point.dist
    return "an installed package" if dist is None else f"{dist.name} {dist.version}"


def entry_point(group: str, name: str, key: str) -> EntryPoint | None:
    """Returns the entry point `name` of a group; None if no installed package declares it. Imports
    nothing. `key`: of the job, for errors.

    Raises: JobError if several packages declare it, since which one is meant is a matter of chance.
    """
    points = {package_of(point): point for point in entry_points(group=group, name=name)}
    if len(points) > 1:
        raise JobError(
            f"{key}: {name} is an entry point of {' and of '.join(sorted(points))}; uninstall all "
            f"but one, or name my_file.py:..."
        )
    return next(iter(points.values()), None)


def load(group: str, name: str, key: str) -> Any:
    """Imports what the entry point `name` of a group refers to. `key`: of the job, for errors.

    Raises: JobError if no installed package declares it, several do, or it cannot be imported.
    """
    point = entry_point(group, name, key)
    if point is None:
        raise JobError(f"{key}: no installed package has {name!r} (an entry point of {group})")
    return _import(point, f"{key}: {name} of {package_of(point)}")


def load_all(group: str, taken: Collection[str] = ()) -> dict[str, object]:
    """Imports all that installed packages declare in a group; returns it by name, in order.

    What cannot be taken is a `JobError` in its place, one line that names the distribution: its
    name is used already, or its import fails. It is for who names it; others get one warning.

    Args:
        taken: the names that raysearch itself uses, and keeps.
    """
    found: dict[str, object] = {}
    owners = dict.fromkeys(taken, "raysearch")
    for point in sorted(entry_points(group=group), key=lambda p: (p.name, package_of(p))):
        where = f"entry point {point.name!r} of {group} in {package_of(point)}"
        if point.name in owners:
            found[point.name] = JobError(
                f"{where}: {owners[point.name]} has one of that name; uninstall one of the two, or "
                f"rename it there"
            )
            continue
        owners[point.name] = package_of(point)
        try:
            found[point.name] = _import(point, where)
        except JobError as e:
            found[point.name] = e
    return found


def _import(point: EntryPoint, where: str) -> Any:
    try:
        return point.load()
    except (Exception, SystemExit) as e:
        raise JobError(
            f"{where}: {point.value} cannot be imported ({type(e).__name__}: {one_line(e)}); mend "
            f"or uninstall that package"
        ) from e
