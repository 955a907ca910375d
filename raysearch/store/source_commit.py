"""Names the git commit of the code that a run was started with.

Invariants: a commit that is not all that runs says so.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path


def source_commit(folder: Path | None = None, files: Sequence[Path] = ()) -> dict[str, str]:
    """Returns the git commit of a folder as `commit`; nothing where git knows none.

    It ends in "-dirty" where the commit is not all that runs: a file that git follows was changed,
    or one of `files` is new, ignored, or outside of that repository.

    Args:
        folder: None: the working directory.
        files: what the job names.
    """
    git = ["git", *(("-C", str(folder)) if folder is not None else ())]
    status = [*git, "status", "--porcelain"]
    try:
        head = _said(*git, "rev-parse", "--verify", "HEAD")
        if head is None:
            return {}
        own = ("--untracked-files=all", "--ignored", "--")
        asked = [("--untracked-files=no",), *((*own, str(file)) for file in files)]
        clean = all(_said(*status, *which) == "" for which in asked)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"commit": f"{head}{'' if clean else '-dirty'}"}


def _said(*command: str) -> str | None:
    """Returns what a command says; None where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    return None if done.returncode else done.stdout.strip()
