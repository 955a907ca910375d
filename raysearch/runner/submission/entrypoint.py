"""The shell line that starts a driver on a cluster's head, by the interpreter that runs its Ray.

A Ray that was started from an environment that is not on the PATH has all packages there, and
`python3` of the PATH may have none. The job's shell is a child of Ray's supervisor, which is a
child of the raylet, whose command line names the interpreter of its workers (Ray 2.52 to 2.60).

Invariants: where that is not found, `python3` of the PATH is taken, as before; what is no Python or
too old a one ends the job in one line.
"""

import shlex
from collections.abc import Sequence

_RAYLET = "$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$PPID/status)"
_OF_RAY = (
    f"$(tr '\\0' '\\n' < /proc/{_RAYLET}/cmdline"
    " | sed -n 's/^--python_worker_command=\\([^ ]*\\) .*/\\1/p')"
)
_OLDEST = (3, 11)
"""The oldest Python that runs raysearch, as pyproject.toml says."""
_FITS = f"import sys; sys.exit(sys.version_info < {_OLDEST} or 7)"
"""What ends with 7 where the interpreter fits; older Pythons take it too, another program does
not."""


def entrypoint(command: Sequence[str], runtime: str, python: str | None = None) -> str:
    """Returns the shell line that runs `raysearch` with `command`.

    It says in one line, and ends with 2, where the interpreter is none or too old.

    `runtime`: as `submit --runtime`; of "pip" Ray puts the job's own environment on the PATH.
    `python`: the interpreter to use, where one is asked for.
    """
    if python is not None:
        of = f"python={shlex.quote(python)}"
    else:
        of = (
            "python=python3"
            if runtime == "pip"
            else f"python={_OF_RAY}; python=${{python:-python3}}"
        )
    version = ".".join(map(str, _OLDEST))
    refusal = (
        f'raysearch: the interpreter "%s" of the head node is no Python {version} or later; give '
        f"--python one that has Ray and raysearch's packages there\\n"
    )
    return (
        f'{of}; "$python" -c {shlex.quote(_FITS)} >/dev/null 2>&1; '
        f'if [ $? != 7 ]; then printf {shlex.quote(refusal)} "$python" >&2; exit 2; fi; '
        f'exec "$python" {shlex.join(["-m", "raysearch.cli", *command])}'
    )
