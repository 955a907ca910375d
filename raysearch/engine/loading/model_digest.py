"""Model digests: identify weights, tokenizer and configuration by content. This module does not
import torch.

Invariants: equal files give equal digests, wherever they lie; a README, a licence or a hidden file
changes nothing; a file that has changed since it was hashed is hashed again.
"""

import hashlib
import time
from pathlib import Path

from raysearch.errors import ModelError
from raysearch.user_cache import recall, remember, stamp

KIND = "digests"
SMALL = 2**20
"""Bytes up to which a file is read each time."""
SETTLED = 2.0
"""Seconds since the last change of a file after which its times tell the next one: some file
systems count in seconds."""

SUFFIXES = frozenset({".safetensors", ".bin", ".gguf", ".json", ".model", ".txt"})


def digest_of(path: str | Path, code: bool = False) -> str:
    """Returns the SHA-256 (64 hex digits) of names and contents of the model files in a folder, or
    of one .gguf file.

    In a folder the files directly in it count (transformers reads no others), and .py files if its
    `code` is run. The name of a .gguf file does not count.

    Raises: ModelError if there is no such file or folder, it holds no model file, or one cannot be
    read.
    """
    path = Path(path)
    try:
        if path.is_file():
            return file_digest(path)
        if not path.is_dir():
            raise ModelError(
                f"{path}: no such file or folder; name a model's folder or a .gguf file"
            )
        files = sorted((p for p in path.iterdir() if _counts(p, code)), key=lambda p: p.name)
        if not files:
            raise ModelError(
                f"{path}: holds no model file; a model's folder has config.json and *.safetensors"
            )
        whole = hashlib.sha256()
        for file in files:
            whole.update(f"{file.name}\0{file_digest(file)}\n".encode())
        return whole.hexdigest()
    except OSError as e:
        raise ModelError(
            f"{path}: cannot be read ({e.strerror or e}); check its rights and the disk"
        ) from e


def _counts(file: Path, code: bool) -> bool:
    suffixes = SUFFIXES | {".py"} if code else SUFFIXES
    if file.name.startswith((".", "README", "LICENSE")) or file.suffix not in suffixes:
        return False
    return file.is_file()


def file_digest(file: Path) -> str:
    """Returns the SHA-256 (64 hex digits) of a file's content; that of a large file is remembered
    while its size, inode and times stay. Raises: OSError."""
    before, large = stamp(file), file.stat().st_size > SMALL
    found = recall(KIND, {"file": before}) if large else None
    if isinstance(found, str) and len(found) == 64:
        return found
    with file.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    if large and stamp(file) == before and time.time() - file.stat().st_ctime > SETTLED:
        remember(KIND, {"file": before}, digest)
    return digest
