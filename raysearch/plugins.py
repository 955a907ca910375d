"""What installed packages add to raysearch, by Python entry points.

A package declares, for instance, in its pyproject.toml

    [project.entry-points."raysearch.featurizers"]
    twist = "my_package.twist:TWIST"

Invariants: a name stands for one thing: two packages that claim it, or one that claims a name of
raysearch itself, are refused; so is a package that cannot be imported.
"""

from collections.abc import Collection
from importlib.metadata import entry_points

from raysearch.errors import JobError


def load(group: str, taken: Collection[str] = ()) -> dict[str, object]:
    """Returns what installed packages declare in a group of entry points, by name, in its order.

    `taken`: the names that raysearch itself uses.

    Raises: JobError, in one line that names the distribution, for a name that is used already or
    an entry point that cannot be imported.
    """
    found: dict[str, object] = {}
    owners = dict.fromkeys(taken, "raysearch")
    for entry in sorted(
        entry_points(group=group), key=lambda e: (e.name, str(e.dist and e.dist.name))
    ):
        owner = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"
        where = f"entry point {entry.name!r} of {group} in {owner}"
        if entry.name in owners:
            raise JobError(
                f"{where}: {owners[entry.name]} has one of that name; uninstall one of the two, or "
                f"rename it there"
            )
        owners[entry.name] = owner
        try:
            found[entry.name] = entry.load()
        except Exception as e:
            raise JobError(
                f"{where}: {entry.value} cannot be imported ({type(e).__name__}: {e}); mend or "
                f"uninstall that package"
            ) from e
    return found
