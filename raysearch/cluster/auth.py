"""How this shell shows itself to a Ray: where its token is, and whether a client of ours sends it.

Invariants: a token is never told, only where it comes from. A client of a job server sends the token wherever there is one, unless
RAY_AUTH_MODE says otherwise; a driver that joins a cluster goes by RAY_AUTH_MODE alone, for it is also a server to that cluster.
"""

import os
from pathlib import Path

from raysearch.errors import ClusterError

_MODE = "RAY_AUTH_MODE"


def mode() -> str:
    """What RAY_AUTH_MODE says, in lower case; empty where it is not set."""
    return os.environ.get(_MODE, "").lower()


def find_token() -> tuple[str, str]:
    """Where Ray takes its token from (its own order), and the token, empty where there is none. Raises: ClusterError."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN", os.environ["RAY_AUTH_TOKEN"]
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return str(path), path.read_text().strip() if path.is_file() else ""
    except OSError as e:
        raise ClusterError(f"{path}: cannot be read ({e.strerror or e}); it holds Ray's token") from e


def token_for_jobs() -> str:
    """What a client of a job server sends; empty: nothing."""
    return find_token()[1] if mode() in ("", "token") else ""


def authorise() -> None:
    """Lets Ray's own client of a job server send it: that looks for a token only when the mode says so (Ray 2.60)."""
    if not mode() and find_token()[1]:
        os.environ[_MODE] = "token"
