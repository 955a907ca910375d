"""Remembers what takes long to find out, in small files of this user on this machine.

A value is found by what it follows from: files by place, size and times, versions, code. So
whatever changes is found out anew, and every file may be deleted at any time. The folder is
`RAYSEARCH_CACHE`, else `$XDG_CACHE_HOME/raysearch`, else `~/.cache/raysearch`;
`RAYSEARCH_CACHE=off` remembers nothing.

Invariants: a file that is broken, cut short or another key's counts as none, and is written anew; a
folder that cannot be written costs time and nothing else.
"""

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VARIABLE = "RAYSEARCH_CACHE"
OFF = ("off", "0", "none", "")
MOST = 500
"""Files of a kind; when there are more, the older half is deleted."""
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "accelerate")
_log = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """Returns the folder of this user's remembered values, which may not exist yet; None if it is
    switched off or there is no home."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return None if named.strip().lower() in OFF else Path(named).expanduser()
    home = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return Path(home if home.startswith("/") else Path.home() / ".cache") / "raysearch"
    except RuntimeError:  # a user without a home
        return None


def recall(kind: str, key: Mapping[str, Any]) -> Any:
    """Returns the JSON value that was remembered for `key`; None if there is none."""
    folder, name = cache_folder(), _digest(key)
    if folder is None:
        return None
    try:
        content = json.loads((folder / kind / f"{name}.json").read_bytes())
        whole = content["key"] == name and content["sum"] == _digest(content["value"])
        return content["value"] if whole else None
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def remember(kind: str, key: Mapping[str, Any], value: Any) -> None:
    """Remembers a JSON value for `key`. Does nothing where the folder cannot be written."""
    folder, name = cache_folder(), _digest(key)
    if folder is None:
        return
    content = {"key": name, "value": value, "sum": _digest(value)}
    _write(folder / kind / f"{name}.json", json.dumps(content).encode())


def recall_bytes(kind: str, key: Mapping[str, Any]) -> bytes | None:
    """Returns the file that was remembered for `key`; None if there is none."""
    folder, digest = cache_folder(), recall(kind, key)
    if folder is None or not isinstance(digest, str):
        return None
    try:
        content = (folder / kind / f"{_digest(key)}.bin").read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == digest else None


def remember_bytes(kind: str, key: Mapping[str, Any], content: bytes) -> None:
    """Remembers a file for `key`. Does nothing where the folder cannot be written."""
    folder = cache_folder()
    if folder is not None:
        _write(folder / kind / f"{_digest(key)}.bin", content)
        remember(kind, key, hashlib.sha256(content).hexdigest())


def stamp(file: Path) -> tuple[str | int, ...]:
    """Returns what shows that a file has changed: its place, size, device, inode and times in ns,
    of which no program can set the last."""
    found = file.stat()
    times = found.st_mtime_ns, found.st_ctime_ns
    return os.path.realpath(file), found.st_size, found.st_dev, found.st_ino, *times


@cache
def versions() -> Mapping[str, str]:
    """Returns the versions of all that an output depends on, with a digest of raysearch's own
    files, by place, size and time."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    own = sorted(Path(__file__).parent.rglob("*.py"))
    return {**found, "raysearch": _digest([stamp(file) for file in own])}


def _digest(value: Any) -> str:
    plain = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(file)
        files = list(file.parent.iterdir())
        if len(files) > MOST:
            for old in sorted(files, key=lambda f: f.stat().st_mtime)[: len(files) // 2]:
                old.unlink(missing_ok=True)
    except OSError as e:
        _log.debug("%s: nothing is remembered there: %s", file.parent, e)
