"""The Ray jobs of raysearch on a cluster, through Ray's Jobs API: sent, looked up, followed,
stopped. Nobody else speaks to that API.

Invariants: whatever the server does is a ClusterError in one line; no token or password is in an
id, an entrypoint or metadata; other people's jobs are not seen.
"""

import asyncio
import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raysearch.cluster.auth import authorise
from raysearch.errors import ClusterError

PREFIX = "raysearch-"
"""Of every submission id of ours."""
NAME_KEY = "raysearch.name"
"""Of a job's metadata: the job's name; whoever has it is ours."""
PORT = 8265
STOP_SECONDS = 120
"""A driver that is told to stop finishes its turn, closes its journal and waits for the tracker; Ray's
own default is 3 s."""
POLL_SECONDS = 0.5
CONNECT_SECONDS = 5
AGENT_SECONDS = 120
RETRIES = 5
"""How often a log that breaks off is taken up again."""
_CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""They say at each upload what we say in a line of our own."""
_NO_AGENT = "No available agent"
_RAYS_OWN = re.compile(r"(\S+ \S+\s+INFO job_manager\.py:\d+ -- |Running entrypoint for job )")
"""Lines that Ray puts before the driver's."""


@dataclass(frozen=True, slots=True)
class RayJob:
    """One job, as Ray tells of it. `status`: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED; times
    in seconds since 1970."""

    id: str
    status: str
    metadata: Mapping[str, str]
    exit_code: int | None
    began: float | None
    ended: float | None
    message: str

    @property
    def over(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def seconds(self) -> float | None:
        """How long it has run."""
        return None if self.began is None else (self.ended or time.time()) - self.began


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to be sent. `package`: the zip that it finds as its folder; `modules`: folders of
    Python packages that go along; `pip`: what is installed for it; `variables`: of its environment,
    which whoever may read the job may read too."""

    id: str
    entrypoint: str
    metadata: Mapping[str, str]
    variables: Mapping[str, str]
    package: Path | None = None
    modules: tuple[Path, ...] = ()
    pip: tuple[str, ...] = ()

    @property
    def runtime_env(self) -> dict[str, Any]:
        """As Ray has it."""
        env: dict[str, Any] = {
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **self.variables}
        }
        if self.package is not None:
            env["working_dir"] = str(self.package)
        if self.modules:
            env["py_modules"] = [str(m) for m in self.modules]
        if self.pip:
            env["pip"] = list(self.pip)
        return env


class JobServer:
    """A cluster's job server, `http://HEAD:8265`. Raises: ClusterError from every method."""

    def __init__(self, address: str) -> None:
        self.address = _address(address)
        _check_reachable(self.address)
        authorise()
        os.environ["RAY_API_SERVER_ADDRESS"] = (
            self.address
        )  # Ray lets this one win over what its client is given
        with self._told():
            from ray.job_submission import JobSubmissionClient

            for name in _CHATTY:
                logging.getLogger(name).setLevel(logging.WARNING)
            self._client = JobSubmissionClient(self.address)

    def submit(self, order: JobRequest) -> None:
        """Sends it; returns when the server has it. A cluster that has just started takes jobs some
        seconds later."""
        until = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                with self._told():
                    self._client.submit_job(
                        entrypoint=order.entrypoint,
                        submission_id=order.id,
                        runtime_env=order.runtime_env,
                        metadata=dict(order.metadata),
                    )
                return
            except ClusterError as e:
                if _NO_AGENT not in str(e) or time.monotonic() > until:
                    raise
            time.sleep(POLL_SECONDS)

    def jobs(self) -> list[RayJob]:
        """Ours, the newest first."""
        with self._told():
            found = [_job(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(
            (j for j in found if NAME_KEY in j.metadata), key=lambda j: j.began or 0, reverse=True
        )

    def find(self, text: str) -> RayJob:
        """The job of that id, or the only one that begins so (`raysearch-` may be left out);
        "latest" is the newest."""
        jobs = self.jobs()
        if text == "latest" and jobs:
            return jobs[0]
        exact = [j for j in jobs if text in (j.id, j.id.removeprefix(PREFIX))]
        found = exact or [
            j for j in jobs if j.id.startswith(text) or j.id.removeprefix(PREFIX).startswith(text)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise ClusterError(
                f"{text}: {len(found)} jobs begin so ({', '.join(j.id for j in found[:4])}); give "
                f"more of it"
            )
        raise ClusterError(
            f"there is no job {text} of raysearch at {self.address}; `raysearch jobs` lists them"
        )

    def job(self, id: str) -> RayJob:
        with self._told(id):
            return _job(self._client.get_job_info(id))

    def stop(self, id: str) -> None:
        """Asks it to stop; it goes on until it has flushed, or STOP_SECONDS are over."""
        with self._told(id):
            self._client.stop_job(id)

    def wait(self, id: str) -> RayJob:
        """The job, once it is over."""
        while not (job := self.job(id)).over:
            time.sleep(POLL_SECONDS)
        return job

    def log(self, id: str) -> Iterator[str]:
        """The lines that its driver has written so far."""
        with self._told(id):
            text = self._client.get_job_logs(id)
        return clean(text.splitlines(keepends=True))

    def follow(self, id: str) -> Iterator[str]:
        """The lines of its driver, as they are written, until it is over. A connection that breaks
        is taken up where it broke."""
        return clean(self._chunks(id))

    def _chunks(self, id: str) -> Iterator[str]:
        seen, tries = 0, 0
        while True:
            tail, at = self._client.tail_job_logs(id), 0

            async def chunk(tail: Any = tail) -> str | None:
                return await anext(tail, None)

            try:
                with asyncio.Runner() as runner:
                    while (text := runner.run(chunk())) is not None:
                        at, new = at + len(text), text[max(0, seen - at) :]
                        if new:
                            seen, tries = seen + len(new), 0
                            yield new
                if self.job(id).over:
                    return
            except Exception as e:  # aiohttp raises its own, Ray RuntimeError; what remains is said by the last try
                if tries == RETRIES:
                    raise ClusterError(
                        f"{self.address}: the log of {id} broke off ({_brief(e)}); `raysearch logs "
                        f"-f {id}` follows it again"
                    ) from e
            tries += 1
            time.sleep(POLL_SECONDS * min(tries, RETRIES))

    def _told(self, id: str = "") -> "_Told":
        return _Told(self.address, id)


def clean(chunks: Iterator[str] | list[str]) -> Iterator[str]:
    """Whole lines from pieces of text: without line ends, Ray's own lines before the driver's, and
    what a carriage return overwrote."""
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split("\n")
        yield from filter(_is_drivers, map(_overwritten, whole))
    if rest:
        yield from filter(_is_drivers, [_overwritten(rest)])


def _overwritten(line: str) -> str:
    return next((part for part in reversed(line.split("\r")) if part), "")


def _is_drivers(line: str) -> bool:
    return _RAYS_OWN.match(line) is None


def _job(details: Any) -> RayJob:
    status = str(getattr(details.status, "value", details.status))
    began, ended = (None if t is None else t / 1000 for t in (details.start_time, details.end_time))
    message = (details.message or "").strip()
    return RayJob(
        details.submission_id or "",
        status,
        details.metadata or {},
        details.driver_exit_code,
        began,
        ended,
        message,
    )


class _Told:
    """A context manager: what Ray's client raises becomes one line, that says what would do."""

    def __init__(self, address: str, id: str) -> None:
        self._address, self._id = address, id

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, ClusterError):
            return
        text = str(error)
        if type(error).__name__ == "AuthenticationError":
            raise ClusterError(
                f"Ray at {self._address} does not take our token ({text.splitlines()[0]}); put the "
                f"head's (~/.ray/auth_token there) "
                "into RAY_AUTH_TOKEN, or into the file that RAY_AUTH_TOKEN_PATH names"
            ) from error
        if "status code 404" in text and self._id:
            raise ClusterError(
                f"there is no job {self._id} at {self._address}; `raysearch jobs` lists them"
            ) from error
        if type(error).__name__ == "ConnectionError":  # the language's, and that of requests
            raise ClusterError(
                f"Ray's job server at {self._address} cannot be reached; is it up? `ray start "
                f"--head` prints its address"
            ) from error
        if "status code 413" in text:
            raise ClusterError(
                f"Ray at {self._address} takes no upload of this size; send less, or a path of the "
                f"nodes"
            ) from error
        if "failed with status code" in text:
            raise ClusterError(
                f"Ray's job server at {self._address} refuses ({_brief(error)})"
            ) from error
        raise ClusterError(
            f"{self._address} does not answer as Ray's job server does ({_brief(error)}); give "
            f"http://HEAD:{PORT}, the dashboard's address"
        ) from error


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _address(address: str) -> str:
    """`http://host:port`. Raises: ClusterError for what is no address of a job server."""
    text = address.rstrip("/") if "://" in address else f"http://{address.rstrip('/')}"
    parts = urlsplit(text)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(
            f"{shown}: is no address of a job server; give http://HEAD:{PORT}, which `ray start "
            f"--head` prints"
        )
    if "@" in parts.netloc:
        raise ClusterError(
            f"{shown}: give the address without user and password; the token stands in "
            f"RAY_AUTH_TOKEN"
        )
    return text


def _check_reachable(address: str) -> None:
    """Ray's client waits for ever where nothing answers."""
    parts = urlsplit(address)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise ClusterError(
            f"Ray's job server at {address} cannot be reached ({reason}); is it up? `ray start "
            f"--head` prints its address"
        ) from e
