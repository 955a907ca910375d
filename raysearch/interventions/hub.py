"""Files to a repository of the Hugging Face hub and back. All that the hub may answer ends in one
line.

Invariants: what is pushed is one commit, whole or not at all; what is pulled is of one commit; a
token stands in no message.
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

# The errors of the HTTP client beneath: requests', httpx' or httpx2's, with the version of
# huggingface_hub.
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
    """The folder of the cache that holds those of `files` that the repository has, all of one
    commit.

    Where the hub cannot be reached, a copy in the cache does. Raises: HubError, one line.
    """
    with _one_line(f"{hub_id}{f' at {revision}' if revision else ''}", endpoint, "read"):
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
    """Commits `files` to the repository, which is made where there is none; the commit's id (the
    last one's, if they are there).

    Raises: HubError, one line.
    """
    api = _api(token, endpoint)
    with _one_line(hub_id, endpoint, "write"):
        # Asked first, though there is `exist_ok`: a token may be allowed to write to a repository
        # and not to make one, and then create_repo of huggingface_hub 2.4 knows no endpoint but its
        # own (HfUriError).
        if not api.repo_exists(hub_id):
            api.create_repo(hub_id, private=private, exist_ok=True)
        # Not upload_folder: it may cut a folder into several commits, and takes whatever else lies
        # there.
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
def _one_line(what: str, endpoint: str | None, doing: str) -> Iterator[None]:
    """Whatever the hub, its client or the network raises inside, as a HubError. `doing`: "read" or
    "write"."""
    hub = endpoint or constants.ENDPOINT
    try:
        with _quiet():
            yield
    except (
        Exception
    ) as e:  # the calls are all theirs: errors of the HTTP client, of LFS, of hf_xet, ...
        # A pull without a copy in the cache raises LocalEntryNotFoundError, an upload to LFS
        # RuntimeError, whatever the reason: the reason is the cause.
        cause = (
            e.__cause__
            if isinstance(e, (LocalEntryNotFoundError, RuntimeError)) and e.__cause__
            else e
        )
        raise HubError(_say(what, hub, doing, cause)) from e


def _say(what: str, hub: str, doing: str, error: BaseException) -> str:
    if isinstance(error, GatedRepoError):
        return f"{what}: {hub} gives it only to those whom its owner let in; ask there for access, then {_ALLOWED} {doing} it"
    if isinstance(error, RevisionNotFoundError):
        return f"{what}: there is no such revision on {hub}; give a branch, a tag or a commit that it has"
    if isinstance(error, RepositoryNotFoundError):
        return f"{what}: there is no such repository on {hub}, or it is private; check the name; {_ALLOWED} {doing} it"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else "no"
        if status in (401, 403):
            return f"{what}: {hub} does not allow you to {doing} it ({_brief(error)}); {_ALLOWED}"
        return f"{what}: {hub} answered with status {status} ({_brief(error)}); try again later, or see to what it says"
    if isinstance(error, (ConnectionError, TimeoutError, LocalEntryNotFoundError, *_CLIENT_ERRORS)):
        return f"{what}: {hub} cannot be reached ({type(error).__name__}: {_brief(error)}); check the network and HF_ENDPOINT"
    return f"{what}: cannot {doing} it on {hub} ({type(error).__name__}: {_brief(error)}); see to what it says"


def _brief(error: BaseException, limit: int = 200) -> str:
    said = getattr(error, "server_message", None) or str(error)
    return one_line(said, limit)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars (the files are small) and warnings, whose matter is raised as well; as
    it was before, afterwards."""
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
