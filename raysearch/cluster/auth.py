"""How this shell shows itself to a Ray: where its token is, and whether a client of ours sends it.

Invariants: a token is never told, only where it comes from. A client of a job server sends the
token wherever there is one, unless RAY_AUTH_MODE says otherwise; a driver that joins a cluster goes
by RAY_AUTH_MODE alone, for it is also a server to that cluster.
"""

import logging
import os
import secrets
from pathlib import Path

from raysearch.errors import ClusterError

_MODE = "RAY_AUTH_MODE"
_log = logging.getLogger("raysearch.cluster")


def mode() -> str:
    """What RAY_AUTH_MODE says, in lower case; empty where it is not set."""
    return os.environ.get(_MODE, "").lower()


def find_token() -> tuple[str, str]:
    """Where Ray takes its token from (its own order), and the token, empty where there is none.
    Raises: ClusterError."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN", os.environ["RAY_AUTH_TOKEN"]
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return str(path), path.read_text().strip() if path.is_file() else ""
    except OSError as e:
        raise ClusterError(
            f"{path}: cannot be read ({e.strerror or e}); it holds Ray's token"
        ) from e


def keep_private(make: bool = False) -> None:
    """The file with Ray's token is readable by its owner alone. `make`: a Ray is started, which
    would make one that all may read.

    Raises: ClusterError where it cannot be made. What was open to others is closed, and said.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or mode() not in ("", "token"):
        return
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        if make and not named and not path.exists():
            _make_token(path)
        elif path.is_file() and (found := path.stat()).st_mode & 0o077:
            if found.st_uid != os.geteuid():
                _log.warning(
                    "%s: others can read it, and it holds Ray's token; its owner can mend that: "
                    "chmod 600",
                    path,
                )
                return
            path.chmod(0o600)
            _log.warning(
                "%s: others could read it, and it holds Ray's token; it is yours alone now. If "
                "others use this machine, remove it when no "
                "Ray of yours runs: a new one is made",
                path,
            )
    except OSError as e:
        raise ClusterError(
            f"{path}: cannot be made readable by you alone ({e.strerror or e}); it holds Ray's "
            f"token"
        ) from e


def token_for_jobs() -> str:
    """What a client of a job server sends; empty: nothing."""
    return find_token()[1] if mode() in ("", "token") else ""


def _make_token(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:  # another search has made one this moment
        return
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32))


def authorise() -> None:
    """Lets Ray's own client of a job server send it: that looks for a token only when the mode says
    so (Ray 2.60)."""
    keep_private()
    if not mode() and find_token()[1]:
        os.environ[_MODE] = "token"
