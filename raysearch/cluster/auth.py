"""Finds Ray's authentication token, protects its file, and decides whether clients send it.

Invariants: the token itself is never shown, only its source. A client of a job server sends the
token wherever there is one, unless RAY_AUTH_MODE says otherwise; a driver that joins a cluster
follows RAY_AUTH_MODE alone, since it is also a server to that cluster.
"""

import logging
import os
import secrets
from pathlib import Path

from raysearch.errors import ClusterError

_MODE = "RAY_AUTH_MODE"
_log = logging.getLogger("raysearch.cluster")


def auth_mode() -> str:
    """Returns RAY_AUTH_MODE in lower case, or "" when it is not set."""
    return os.environ.get(_MODE, "").lower()


def find_token() -> tuple[str, str]:
    """Returns (source, token), searched in Ray's own order; the token is "" when there is none.

    Raises: ClusterError when the token's file cannot be read.
    """
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


def protect_token_file(make: bool = False) -> None:
    """Makes the file with Ray's token readable by its owner alone, and warns if it was not.

    Args: make: also create the file when it is missing, because the Ray about to start would create
    one that everybody can read.

    Raises: ClusterError when the file cannot be made private.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or auth_mode() not in ("", "token"):
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
                "others use this machine, remove it when no Ray of yours runs: a new one is made",
                path,
            )
    except OSError as e:
        raise ClusterError(
            f"{path}: cannot be made readable by you alone ({e.strerror or e}); it holds Ray's "
            f"token"
        ) from e


def token_for_jobs() -> str:
    """Returns the token that a client of a job server sends, or "" for none."""
    return find_token()[1] if auth_mode() in ("", "token") else ""


def _make_token(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:  # another search has just created it
        return
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32))


def enable_token() -> None:
    """Lets Ray's job client send the token: it reads one only if RAY_AUTH_MODE is set (2.60)."""
    protect_token_file()
    if not auth_mode() and find_token()[1]:
        os.environ[_MODE] = "token"
