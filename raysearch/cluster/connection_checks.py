"""Checks within seconds whether the Ray servers named by this shell answer, without joining them.

Invariants: the token itself is never shown, only its source.
"""

import json
import urllib.error
import urllib.request

from ray import __version__ as ray_version

from raysearch.cluster.auth import auth_mode, find_token, token_for_jobs
from raysearch.cluster.ray_session import check_reachable
from raysearch.errors import ClusterError

TIMEOUT_SECONDS = 5.0
"""Time after which an address counts as unreachable."""
_TOKEN_HEADER = "Authorization"


def check_cluster(address: str | None) -> str:
    """Describes the cluster that a driver would join. Raises: ClusterError if it is silent."""
    if address is None:
        return (
            f"no cluster is named: a search starts a Ray {ray_version} of its own on this machine"
        )
    check_reachable(address, TIMEOUT_SECONDS)
    return f"{address} answers"


def check_token() -> str:
    """Describes how this shell authenticates to Ray.

    Raises: ClusterError when a token is required and missing.
    """
    where, found = find_token()
    if auth_mode() != "token":
        sends = f"sends the one from {where}" if token_for_jobs() else "sends none"
        return (
            f"RAY_AUTH_MODE is {auth_mode() or 'not set'}: `submit` {sends}, a driver that joins a "
            "cluster here shows none; one that asks for it needs RAY_AUTH_MODE=token"
        )
    if not found:
        raise ClusterError(
            f"RAY_AUTH_MODE=token, and there is no token in {where}; set RAY_AUTH_TOKEN to the "
            f"cluster's, or copy it to that file"
        )
    return f"token, from {where}"


def check_job_server(url: str | None) -> str:
    """Describes the server that jobs are submitted to.

    Raises: ClusterError when it does not answer, or refuses the token.
    """
    if url is None:
        return "no job server is named (RAY_API_SERVER_ADDRESS): `submit` searches on this machine"
    if not url.startswith(("http://", "https://")):
        raise ClusterError(f"{url}: is no address of a job server; give http://HEAD:8265")
    secret = token_for_jobs()
    request = urllib.request.Request(f"{url.rstrip('/')}/api/version")
    if secret:
        request.add_header(_TOKEN_HEADER, f"Bearer {secret}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            version = json.load(answer).get("ray_version")
    except urllib.error.HTTPError as e:
        if e.code in (401, 403):
            raise ClusterError(
                f"{url}: asks for another token ({e.code}); set RAY_AUTH_MODE=token and "
                "RAY_AUTH_TOKEN to the cluster's (`ray get-auth-token` on its head prints it)"
            ) from e
        raise ClusterError(
            f"{url}: answers {e.code} {e.reason}; is it the address of Ray's dashboard?"
        ) from e
    except (OSError, ValueError, AttributeError) as e:
        why = getattr(e, "reason", None) or e
        raise ClusterError(
            f"{url}: cannot be reached ({why}); is the head up, and its port 8265 open to here?"
        ) from e
    if version != ray_version:
        return (
            f"{url} answers; it has Ray {version}, here is {ray_version}: a job runs with what is "
            "there"
        )
    return f"{url} answers, Ray {version}"
