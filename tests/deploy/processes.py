"""Servers of a test: started, waited for, ended by their ids.

Invariants: nothing that a test did not start is ended; whoever fails to come up is quoted.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def missing(*programs: str) -> str:
    """The names of programs that are not here, for a reason to skip."""
    return ", ".join(p for p in programs if find(p) is None)


def find(program: str) -> str | None:
    """Where a program is; servers of Debian lie outside the path of most users."""
    places = [
        os.environ.get("PATH", ""),
        "/usr/sbin",
        *map(str, Path("/usr/lib/postgresql").glob("*/bin")),
    ]
    return shutil.which(program, path=os.pathsep.join(places))


@contextmanager
def folder_of(user: str | None) -> Iterator[Path]:
    """A short-named folder that `user` (None: whoever runs this) owns; sockets cannot have long
    paths."""
    path = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
    try:
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(path, entry.pw_uid, entry.pw_gid)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def servant(name: str) -> str | None:
    """The user that a server must run as: `name` if this is root, who may not run it, else nobody
    else (None)."""
    return name if os.geteuid() == 0 else None


def as_user(user: str | None) -> dict[str, Any]:
    """Arguments of Popen."""
    return (
        {}
        if user is None
        else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    )


@contextmanager
def running(
    command: Sequence[str], log: Path, up: Callable[[], bool], seconds: float = 300, **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """`command` in the foreground, with a group of its own, once `up` says that it is; ended when
    left."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **more,
        )
    try:
        wait_until(
            lambda: process.poll() is not None or up(),
            seconds,
            lambda: f"{command[0]}:\n{log.read_text()}",
        )
        assert process.poll() is None, (
            f"{command[0]} ended with {process.returncode}:\n{log.read_text()}"
        )
        yield process
    finally:
        _end(process)


def wait_until(there: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Returns when `there` is true; fails with what `otherwise` says when that takes too long."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, f"not there after {seconds:g} s: {otherwise()}"
        time.sleep(0.2)


def answers(port: int) -> bool:
    """Whether somebody listens at a port of loopback."""
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            continue
        if sign is signal.SIGTERM:
            return
    process.wait(20)
