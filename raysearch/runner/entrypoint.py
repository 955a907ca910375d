"""The shell line that starts a driver on a cluster's head, by the interpreter that runs its Ray.

A Ray that was started from an environment that is not on the PATH has all packages there, and
`python3` of the PATH may have none. The job's shell is a child of Ray's supervisor, which is a
child of the raylet, whose command line names the interpreter of its workers (Ray 2.52 to 2.60).

Invariants: where that is not found, `python3` of the PATH is taken, as before.
"""

import shlex
from collections.abc import Sequence

_RAYLET = "$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$PPID/status)"
_OF_RAY = (
    f"$(tr '\\0' '\\n' < /proc/{_RAYLET}/cmdline"
    " | sed -n 's/^--python_worker_command=\\([^ ]*\\) .*/\\1/p')"
)


def entrypoint(command: Sequence[str], runtime: str, python: str | None = None) -> str:
    """Returns the shell line that runs `raysearch` with `command`.

    `runtime`: as `submit --runtime`; of "pip" Ray puts the job's own environment on the PATH.
    `python`: the interpreter to use, where one is asked for.
    """
    arguments = shlex.join(["-m", "raysearch.cli", *command])
    if python is not None:
        return f"{shlex.quote(python)} {arguments}"
    if runtime == "pip":
        return f"python3 {arguments}"
    return f'python={_OF_RAY}; exec "${{python:-python3}}" {arguments}'
