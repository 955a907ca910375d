"""Submits a search, or the rest of one, as a job of a Ray cluster.

Invariants: a store or tracker that would be lost with the job's folder is refused; no password or
token gets into the job's entrypoint, id or metadata, and into its environment only by a name that
the user gave.
"""

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import raysearch
from raysearch.cluster.job_environment import ADDRESS_KEY
from raysearch.cluster.jobs import (
    HASH_KEY,
    NAME_KEY,
    PREFIX,
    RUN_KEY,
    STORE_KEY,
    JobRequest,
    JobServer,
)
from raysearch.deploy.wheel import requirements
from raysearch.errors import JobError, StoreError
from raysearch.runner.session.frontend import RunOptions
from raysearch.runner.submission.entrypoint import entrypoint
from raysearch.runner.submission.upload import JOB_FILE, MIB, pack
from raysearch.storage.uris import is_uri, without_credentials
from raysearch.store.locations import kind_of
from raysearch.store.run_folder import find_run
from raysearch.tracking.registry import tracker_of
from raysearch.tracking.uris import tracking_kind

TRACKING = "RAYSEARCH_TRACKING_URI"
_STAMP = "%Y%m%dT%H%M%SZ"
_RUN_NAME = re.compile(r"(?P<name>.+)-\d{8}T\d{6}Z-(?P<hash>[0-9a-f]{8})")
_OWN_RIGHTS = "the nodes' own environment or role gives the rights to it"


@dataclass(frozen=True)
class Submission:
    """The cluster that a job is sent to, and the options of its driver there.

    `env`: names of environment variables that it gets; `runtime`: where the nodes have raysearch
    from ("installed", "tree" or "pip"); `python`: the interpreter of the driver there; `say`: takes
    lines for the user.
    """

    address: str
    store: str
    tracking_uri: str | None = None
    fail_on_error: float = 0.05
    tracked_children: int = RunOptions.tracked_children
    quiet: bool = False
    verbose: bool = False
    no_color: bool = False
    runtime: str = "tree"
    env: tuple[str, ...] = ()
    python: str | None = None
    say: Callable[[str], None] = lambda _: None


def submit_job(
    job_file: Path,
    sets: Sequence[str],
    include: Sequence[Path],
    on_nodes: Sequence[Path],
    sending: Submission,
) -> tuple[JobServer, str]:
    """Submits a job; returns the server and the job's id there.

    Raises: RaysearchError in one line.
    """
    _check_store(sending)
    command = ["run", JOB_FILE, *_flags(sending)]
    _variables(sending.env)  # reports an unset variable before anything is sent
    upload = pack(job_file, sets, on_nodes, include)
    server = JobServer(sending.address)
    with tempfile.TemporaryDirectory(prefix="raysearch-") as folder:
        package = Path(folder) / "job.zip"
        upload.write(package)
        digest = upload.digest
        metadata = {
            NAME_KEY: upload.job.name,
            HASH_KEY: digest,
            STORE_KEY: sending.store,
            ADDRESS_KEY: server.address,
        }
        order = _order(sending, _id(upload.job.name, digest), command, metadata, package)
        size = f"{len(upload.files)} files, {upload.bytes / MIB:.1f} MiB sent along"
        return _send(server, order, sending, size)


def resume_job(
    run: str, sending: Submission, retry: bool = False, more_pairs: int | None = None
) -> tuple[JobServer, str]:
    """Resumes a run as a job of a cluster that reaches its store; returns as `submit_job`.

    Args:
        retry: try again what failed.
        more_pairs: test what is undecided on so many further pairs.

    Raises: RaysearchError in one line.
    """
    run = _whole_name(run, sending.store).rstrip("/")
    folder, is_path, name = run.rpartition("/")
    if not is_path:
        _check_store(sending)
    elif kind_of(run) == "relative":
        raise StoreError(
            f"{run}: is a folder of this machine; give its absolute path, as the cluster has it"
        )
    _check_no_secret("RUN", run, _OWN_RIGHTS)
    found = _RUN_NAME.fullmatch(name)
    if found is None:
        raise StoreError(
            f"{run}: is no name of a run; it is <name>-<time>-<hash>, and `ls` of the store shows "
            f"it"
        )
    command = resume_command(run, sending, retry, more_pairs)
    server = JobServer(sending.address)
    metadata = {
        NAME_KEY: found["name"],
        RUN_KEY: name,
        STORE_KEY: folder or sending.store,
        ADDRESS_KEY: server.address,
    }
    order = _order(sending, _id(found["name"], found["hash"]), command, metadata)
    return _send(server, order, sending, f"resume {name}")


def resume_command(
    run: str, sending: Submission, retry: bool, more_pairs: int | None = None
) -> list[str]:
    """Returns the driver's command on the cluster, with the store if `run` is a name in it.

    Raises: JobError, StoreError.
    """
    return [
        "resume",
        run,
        *(["--retry-failed"] if retry else []),
        *(["--more-pairs", str(more_pairs)] if more_pairs else []),
        *_flags(sending, with_store="/" not in run),
    ]


def _order(
    sending: Submission,
    id: str,
    command: Sequence[str],
    metadata: dict[str, str],
    package: Path | None = None,
) -> JobRequest:
    sent = sending.runtime != "installed"
    return JobRequest(
        id=id,
        entrypoint=entrypoint(command, sending.runtime, sending.python),
        metadata=metadata,
        variables=_variables(sending.env),
        package=package,
        modules=(Path(raysearch.__file__).parent,) if sent else (),
        pip=requirements() if sending.runtime == "pip" else (),
    )


def _send(
    server: JobServer, order: JobRequest, sending: Submission, what: str
) -> tuple[JobServer, str]:
    server.submit(order)
    if not sending.quiet:
        sending.say(f"submitted {order.id} to {server.address} ({what})")
    return server, order.id


def _flags(sending: Submission, with_store: bool = True) -> list[str]:
    """Returns the driver's flags, without a tracking URI that --env passes on."""
    flags = ["--address", "auto", *(["--store", sending.store] if with_store else [])]
    uri = sending.tracking_uri
    if uri is not None and TRACKING not in sending.env:
        _check_tracking(uri, sending)
        flags += ["--tracking-uri", uri]
    flags += [
        "--fail-on-error",
        f"{sending.fail_on_error:g}",
        "--mlflow-children",
        str(sending.tracked_children),
    ]
    given = {"--quiet": sending.quiet, "--verbose": sending.verbose, "--no-color": sending.no_color}
    return flags + [flag for flag, is_given in given.items() if is_given]


def _check_store(sending: Submission) -> None:
    store = sending.store
    _check_no_secret("--store", store, _OWN_RIGHTS)
    match kind_of(store):
        case "relative":
            raise StoreError(
                f"--store {store}: dies with the job's folder on the cluster; give an absolute "
                "path that the head node has (/shared/runs) or an object store (s3://bucket/runs)"
            )
        case "local":
            sending.say(
                f"--store {store}: is a path on the head node; to resume on another cluster, it "
                f"must have it too"
            )


def _check_tracking(uri: str, sending: Submission) -> None:
    kind = tracker_of(uri)
    _check_no_secret(
        "--tracking-uri",
        uri,
        f"give it without, and {kind.credentials} in the nodes' environment or by --env; "
        f"or hand it on as a whole: --env {TRACKING}",
    )
    match tracking_kind(uri):
        case "relative":
            raise StoreError(
                f"--tracking-uri {uri}: dies with the job's folder on the cluster; give "
                f"{kind.example}, or none"
            )
        case "local":
            sending.say(f"--tracking-uri {uri}: is a path on the head node")


def _check_no_secret(flag: str, uri: str, would_do: str) -> None:
    shown = without_credentials(uri)
    if shown != uri:
        raise JobError(
            f"{flag} {shown.partition('?')[0]}: holds a password, which all who see the job's "
            f"entrypoint would read; {would_do}"
        )


def _variables(names: Sequence[str]) -> dict[str, str]:
    """Returns the environment variables that the user names. Raises: JobError for one that is not
    set."""
    for name in names:
        if not re.fullmatch(r"\w+", name):
            raise JobError(
                f"--env {name.partition('=')[0]}: takes the name of a variable alone; set it here, "
                f"and name it"
            )
        if name not in os.environ:
            raise JobError(f"--env {name}: is not set here; export it first")
    return {name: os.environ[name] for name in names}


def _whole_name(run: str, store: str) -> str:
    """Returns the whole name of a run of the store ("latest", a beginning); a path or a whole name
    as it is.

    Raises: StoreError if the store cannot be read, or has no such run.
    """
    is_whole = "/" in run or _RUN_NAME.fullmatch(run)
    return run if is_whole or is_uri(run) else find_run(store, run).info.id


def _id(name: str, digest: str) -> str:
    return f"{PREFIX}{name}-{digest[:8]}-{datetime.now(UTC).strftime(_STAMP)}"
