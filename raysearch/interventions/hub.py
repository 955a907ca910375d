"""Pushes files to a repository of the Hugging Face hub, and pulls them; errors become one line.

Invariants: a push is one commit, complete or not at all; a pull is of one commit; no message
contains a token.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from raysearch._version import __version__
from raysearch.errors import HubError
from raysearch.visible_text import one_line

# Errors of the HTTP client underneath: requests, httpx or httpx2, by version of huggingface_hub.
_CLIENT_ERRORS: tuple[type, ...] = tuple(
    base
    for base in HfHubHTTPError.__mro__
    if base.__module__.split(".")[0] not in ("huggingface_hub", "builtins")
)
_ALLOWED = "`hf auth login`, HF_TOKEN or token=... gives a token that may"


def pull(
    hub_id: str,
    files: Sequence[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> Path:
    """Downloads those of `files` that the repository has, from one commit; returns the cache's
    folder.

    Uses the cached copy when the hub cannot be reached. Raises: HubError in one line.
    """
    with _translated_errors(f"{hub_id}{f' at {revision}' if revision else ''}", endpoint, "read"):
        found = _api(token, endpoint).snapshot_download(
            hub_id, revision=revision, allow_patterns=list(files)
        )
    return Path(found)


def push(
    hub_id: str,
    files: Mapping[str, bytes],
    message: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> str:
    """Commits `files` to the repository, which is created if missing; returns the commit's id.

    If nothing has changed, that is the last commit's. Raises: HubError in one line.
    """
    api = _api(token, endpoint)
    with _translated_errors(hub_id, endpoint, "write"):
        # Checked first despite `exist_ok`: a token may be allowed to write but not to create, and
        # then create_repo of huggingface_hub 2.4 ignores the endpoint (HfUriError).
        if not api.repo_exists(hub_id):
            api.create_repo(hub_id, private=private, exist_ok=True)
        # Not upload_folder: it may split a folder into several commits, and uploads unrelated
        # files.
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
            for name, content in files.items()
        ]
        return str(api.create_commit(hub_id, operations, commit_message=message).oid)


def _api(token: str | bool | None, endpoint: str | None) -> HfApi:
    return HfApi(
        endpoint=endpoint, token=token, library_name="raysearch", library_version=__version__
    )


@contextmanager
def _translated_errors(what: str, endpoint: str | None, action: str) -> Iterator[None]:
    """Turns any error of the hub, its client or the network into a HubError.

    Args: action: "read" or "write".
    """
    hub = endpoint or constants.ENDPOINT
    try:
        with _quiet():
            yield
    except (
        Exception
    ) as e:  # the calls can raise anything: errors of the HTTP client, of LFS, of hf_xet, ...
        # A pull without a cached copy raises LocalEntryNotFoundError, an upload to LFS
        # RuntimeError, for any reason; the reason is the cause.
        cause = (
            e.__cause__
            if isinstance(e, (LocalEntryNotFoundError, RuntimeError)) and e.__cause__
            else e
        )
        raise HubError(_message(what, hub, action, cause)) from e


def _message(what: str, hub: str, action: str, error: BaseException) -> str:
    if isinstance(error, GatedRepoError):
        return (
            f"{what}: {hub} gives it only to those whom its owner let in; ask there for access, "
            f"then {_ALLOWED} {action} it"
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{what}: there is no such revision on {hub}; give a branch, a tag or a commit that it "
            "has"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{what}: there is no such repository on {hub}, or it is private; check the name; "
            f"{_ALLOWED} {action} it"
        )
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else "no"
        if status in (401, 403):
            return f"{what}: {hub} does not allow you to {action} it ({_brief(error)}); {_ALLOWED}"
        return (
            f"{what}: {hub} answered with status {status} ({_brief(error)}); try again later, or "
            "see to what it says"
        )
    reason = f"({type(error).__name__}: {_brief(error)})"
    if isinstance(error, (ConnectionError, TimeoutError, LocalEntryNotFoundError, *_CLIENT_ERRORS)):
        return f"{what}: {hub} cannot be reached {reason}; check the network and HF_ENDPOINT"
    return f"{what}: cannot {action} it on {hub} {reason}; see to what it says"


def _brief(error: BaseException, limit: int = 200) -> str:
    return one_line(getattr(error, "server_message", None) or str(error), limit)


@contextmanager
def _quiet() -> Iterator[None]:
    """Disables progress bars (the files are small) and warnings (errors repeat them) inside the
    block."""
    logger = logging.getLogger("huggingface_hub")
    level, bars = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()
