"""Submits, finds, follows and stops raysearch's jobs on a cluster. Only this module uses Ray's Jobs
API.

Invariants: every failure of the server is a ClusterError in one line; ids, entrypoints and metadata
contain no token or password; other people's jobs are not shown.
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

from raysearch.cluster.auth import enable_token
from raysearch.errors import ClusterError

PREFIX = "raysearch-"
"""Prefix of all our submission ids."""
NAME_KEY = "raysearch.name"
"""Metadata key with the job's name; a job that has it is ours."""
HASH_KEY, RUN_KEY, STORE_KEY = "raysearch.job", "raysearch.run", "raysearch.store"
"""Metadata keys: digest of the job, the run that is resumed, the store."""
PORT = 8265
STOP_SECONDS = 120
"""Time for a stopped driver to finish its step, close its journal and wait for the tracker; Ray's
default is 3 s."""
POLL_SECONDS = 0.5
CONNECT_SECONDS = 5
AGENT_SECONDS = 120
RETRIES = 5
"""Times that an interrupted log is resumed."""
_NOISY_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Ray's loggers that repeat at each upload what our own line says."""
_NO_AGENT = "No available agent"
_RAY_LINE = re.compile(r"(\S+ \S+\s+INFO job_manager\.py:\d+ -- |Running entrypoint for job )")
"""Matches lines that Ray writes before the driver's."""


@dataclass(frozen=True, slots=True)
class RayJob:
    """A job as Ray describes it.

    `status`: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED; `began` and `ended`: Unix times in
    seconds.
    """

    id: str
    status: str
    metadata: Mapping[str, str]
    exit_code: int | None
    began: float | None
    ended: float | None
    message: str

    @property
    def is_over(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def seconds(self) -> float | None:
        """Seconds since it began, up to its end; None before it began."""
        return None if self.began is None else (self.ended or time.time()) - self.began


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to submit.

    `package`: zip that becomes its working directory; `modules`: folders of Python packages to send
    along; `pip`: requirements to install; `variables`: environment variables, visible to whoever
    may read the job.
    """

    id: str
    entrypoint: str
    metadata: Mapping[str, str]
    variables: Mapping[str, str]
    package: Path | None = None
    modules: tuple[Path, ...] = ()
    pip: tuple[str, ...] = ()

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The runtime environment in Ray's format."""
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
    """Client of a cluster's job server, `http://HEAD:8265`. Every method raises ClusterError."""

    def __init__(self, address: str) -> None:
        self.address = _address(address)
        _check_reachable(self.address)
        enable_token()
        os.environ["RAY_API_SERVER_ADDRESS"] = (
            self.address
        )  # Ray prefers this variable to the address that its client is given
        with self._translated_errors():
            from ray.job_submission import JobSubmissionClient

            for name in _NOISY_LOGGERS:
                logging.getLogger(name).setLevel(logging.WARNING)
            self._client = JobSubmissionClient(self.address)

    def submit(self, request: JobRequest) -> None:
        """Submits a job and returns once the server has accepted it.

        A cluster that has just started accepts jobs only after some seconds, so this retries.
        """
        until = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                with self._translated_errors():
                    self._client.submit_job(
                        entrypoint=request.entrypoint,
                        submission_id=request.id,
                        runtime_env=request.runtime_env,
                        metadata=dict(request.metadata),
                    )
                return
            except ClusterError as e:
                if _NO_AGENT not in str(e) or time.monotonic() > until:
                    raise
            time.sleep(POLL_SECONDS)

    def jobs(self) -> list[RayJob]:
        """Returns our jobs, newest first."""
        with self._translated_errors():
            found = [_job(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(
            (j for j in found if NAME_KEY in j.metadata), key=lambda j: j.began or 0, reverse=True
        )

    def find(self, text: str) -> RayJob:
        """Returns the job with this id or unique prefix (`raysearch-` is optional); "latest" is the
        newest."""
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
        with self._translated_errors(id):
            return _job(self._client.get_job_info(id))

    def stop(self, id: str) -> None:
        """Asks a job to stop; it continues until it has flushed, at most STOP_SECONDS."""
        with self._translated_errors(id):
            self._client.stop_job(id)

    def wait(self, id: str) -> RayJob:
        """Blocks until the job is over and returns it."""
        while not (job := self.job(id)).is_over:
            time.sleep(POLL_SECONDS)
        return job

    def log(self, id: str) -> Iterator[str]:
        """Returns the lines that its driver has written so far."""
        with self._translated_errors(id):
            text = self._client.get_job_logs(id)
        return clean_lines(text.splitlines(keepends=True))

    def follow(self, id: str) -> Iterator[str]:
        """Yields the lines of its driver as they are written, until it is over; reconnects when
        interrupted."""
        return clean_lines(self._chunks(id))

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
                if self.job(id).is_over:
                    return
            # aiohttp raises its own errors, Ray RuntimeError; the last attempt reports them
            except Exception as e:
                if tries == RETRIES:
                    raise ClusterError(
                        f"{self.address}: the log of {id} broke off ({_brief(e)}); `raysearch logs "
                        f"-f {id}` follows it again"
                    ) from e
            tries += 1
            time.sleep(POLL_SECONDS * min(tries, RETRIES))

    def _translated_errors(self, id: str = "") -> "_ErrorTranslation":
        return _ErrorTranslation(self.address, id)


def clean_lines(chunks: Iterator[str] | list[str]) -> Iterator[str]:
    """Yields whole lines from chunks of text, without line ends.

    Drops the lines that Ray writes before the driver's, and text overwritten by a carriage return.
    """
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split("\n")
        yield from filter(_is_driver_line, map(_visible_part, whole))
    if rest:
        yield from filter(_is_driver_line, [_visible_part(rest)])


def _visible_part(line: str) -> str:
    return next((part for part in reversed(line.split("\r")) if part), "")


def _is_driver_line(line: str) -> bool:
    return _RAY_LINE.match(line) is None


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


class _ErrorTranslation:
    """Context manager that turns errors of Ray's client into one ClusterError with a remedy."""

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
        if type(error).__name__ == "ConnectionError":  # the built-in class, or that of requests
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
    """Returns `http://host:port`. Raises: ClusterError when the text is no job server's address."""
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
    """Raises ClusterError when nothing answers, where Ray's client would wait for ever."""
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
