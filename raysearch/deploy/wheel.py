"""Builds a wheel of the running code for other machines, and lists its requirements.

Invariants: no package index is asked for raysearch. The name `raysearch` on PyPI is another
project's; ours is `raysearch-alignment`, which is on no index yet, so that it is installed from its
sources or from a wheel built from them. The same code gives the same bytes.
"""

import base64
import hashlib
import re
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from io import BytesIO
from pathlib import Path

from raysearch.errors import RaysearchError
from raysearch.storage.atomic_write import write_bytes_whole

DISTRIBUTION = "raysearch-alignment"
CONFLICTING = "raysearch"
"""Another project's distribution; our import and command have this name."""
_PACKAGE = Path(__file__).parents[1]
_STAMP = (1980, 1, 1, 0, 0, 0)
_WHEEL = "Wheel-Version: 1.0\nGenerator: raysearch\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def own_distribution() -> Distribution:
    """Returns the metadata of our installation.

    Raises: RaysearchError if raysearch runs from sources that were never installed.
    """
    for found in _installed(DISTRIBUTION):
        return found
    raise RaysearchError(
        f"raysearch runs from its sources, and {DISTRIBUTION} is not installed; say `pip install "
        f"-e .` where these are"
    )


def find_name_conflict() -> str | None:
    """Returns advice if another project's distribution `raysearch` is installed from an index, or
    None.

    Our own, before it was renamed, came from a folder or file, as its direct_url.json says (PEP
    610).
    """
    for found in _installed(CONFLICTING):
        if found.read_text("direct_url.json") is None:
            what = found.metadata["Summary"] or "no summary"
            return (
                f"{CONFLICTING} {found.version} is installed too, from an index: that is "
                f"somebody else's project ({what}), whose files stand where ours do; pip "
                f"uninstall {CONFLICTING}, and install {DISTRIBUTION} anew from its sources"
            )
    return None


def _installed(name: str) -> Iterator[Distribution]:
    """Yields the installations of `name`; ignores an .egg-info left by a build, which has no
    METADATA."""
    return (found for found in distributions(name=name) if found.read_text("METADATA") is not None)


def requirements(exclude: tuple[str, ...] = ("ray",)) -> tuple[str, ...]:
    """Returns our requirements in pip's format, without extras and without those in `exclude`.

    Raises: RaysearchError.
    """
    found = [
        text for text in own_distribution().requires or () if ";" not in text
    ]  # a marker follows for extras
    return tuple(text for text in found if re.split(r"[^\w.-]", text, maxsplit=1)[0] not in exclude)


def build_wheel() -> tuple[str, bytes]:
    """Returns (file name, content) of a wheel of the running code.

    Raises: RaysearchError if it was never installed.
    """
    ours = own_distribution()
    stem = f"{DISTRIBUTION.replace('-', '_')}-{ours.version}"
    about = f"{stem}.dist-info"
    files = {
        p.relative_to(_PACKAGE.parent).as_posix(): p.read_bytes()
        for p in sorted(_PACKAGE.rglob("*"))
        if _is_ours(p)
    }
    files[f"{about}/METADATA"] = str(ours.read_text("METADATA")).encode()
    files[f"{about}/WHEEL"] = _WHEEL.encode()
    files[f"{about}/entry_points.txt"] = str(ours.read_text("entry_points.txt") or "").encode()
    record = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[f"{about}/RECORD"] = "\n".join([*record, f"{about}/RECORD,,", ""]).encode()
    whole = BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, _STAMP)
            info.external_attr = 0o644 << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return f"{stem}-py3-none-any.whl", whole.getvalue()


def write_wheel(to: Path) -> Path:
    """Writes the wheel into an existing folder; returns its path. Raises: RaysearchError,
    StoreError."""
    name, content = build_wheel()
    write_bytes_whole(to / name, content)
    return to / name


def _is_ours(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
