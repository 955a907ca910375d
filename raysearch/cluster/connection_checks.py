"""Whether the Rays that this shell names answer, within seconds; nothing is started and nothing
joined.

Invariants: no token is told, only where it comes from.
"""

import json
import urllib.error
import urllib.request

from ray import __version__ as ray_version

from raysearch.cluster.auth import find_token, mode, token_for_jobs
from raysearch.cluster.session import check_reachable
from raysearch.errors import ClusterError

SECONDS = 5.0
"""Until an address is given up."""
_TOKEN_HEADER = "Authorization"


def cluster(address: str | None) -> str:
    """Of a cluster that a driver would join, in words. Raises: ClusterError."""
    if address is None:
        return (
            f"no cluster is named: a search starts a Ray {ray_version} of its own on this machine"
        )
    check_reachable(address, SECONDS)
    return f"{address} answers"


def token() -> str:
    """How this shell shows itself to a Ray, in words. Raises: ClusterError for a token that is
    asked for and not there."""
    where, found = find_token()
    if mode() != "token":
        sends = f"sends the one from {where}" if token_for_jobs() else "sends none"
        said = f"RAY_AUTH_MODE is {mode() or 'not set'}: `submit` {sends}, a driver that joins a cluster here shows none"
        return f"{said}; one that asks for it needs RAY_AUTH_MODE=token"
    if not found:
        raise ClusterError(
            f"RAY_AUTH_MODE=token, and there is no token in {where}; set RAY_AUTH_TOKEN to the "
            f"cluster's, or copy it to that file"
        )
    return f"token, from {where}"


def job_server(url: str | None) -> str:
    """Of the server that jobs are submitted to, in words. Raises: ClusterError."""
    if url is None:
        return "no job server is named (RAY_API_SERVER_ADDRESS): `submit` searches on this machine"
    if not url.startswith(("http://", "https://")):
        raise ClusterError(f"{url}: is no address of a job server; give http://HEAD:8265")
    secret = token_for_jobs()
    request = urllib.request.Request(f"{url.rstrip('/')}/api/version")
    if secret:
        request.add_header(_TOKEN_HEADER, f"Bearer {secret}")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            there = json.load(answer).get("ray_version")
    except urllib.error.HTTPError as e:
        if e.code in (401, 403):
            raise ClusterError(
                f"{url}: asks for another token ({e.code}); set RAY_AUTH_MODE=token and "
                f"RAY_AUTH_TOKEN to the cluster's "
                "(`ray get-auth-token` on its head prints it)"
            ) from e
        raise ClusterError(
            f"{url}: answers {e.code} {e.reason}; is it the address of Ray's dashboard?"
        ) from e
    except (OSError, ValueError, AttributeError) as e:
        why = getattr(e, "reason", None) or e
        raise ClusterError(
            f"{url}: cannot be reached ({why}); is the head up, and its port 8265 open to here?"
        ) from e
    if there != ray_version:
        return f"{url} answers; it has Ray {there}, here is {ray_version}: a job runs with what is there"
    return f"{url} answers, Ray {there}"
