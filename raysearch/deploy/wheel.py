"""raysearch itself as something that other machines can install: a wheel of the very code that runs
here, and what that needs.

Invariants: nobody's index is asked for raysearch. The name `raysearch` on PyPI is another's
project; ours is distributed as `raysearch-alignment`, which is on no index yet: whoever installs it
has its sources, or a wheel that was built from them. The same code gives the same bytes.
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
TAKEN = "raysearch"
"""A distribution of somebody else's. Import and command of ours have this name."""
_PACKAGE = Path(__file__).parents[1]
_STAMP = (1980, 1, 1, 0, 0, 0)
_WHEEL = "Wheel-Version: 1.0\nGenerator: raysearch\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def own() -> Distribution:
    """What is known of our own installation. Raises: RaysearchError where raysearch runs from
    sources that were never installed."""
    for found in _installed(DISTRIBUTION):
        return found
    raise RaysearchError(
        f"raysearch runs from its sources, and {DISTRIBUTION} is not installed; say `pip install "
        f"-e .` where these are"
    )


def stranger() -> str | None:
    """What to do about a distribution named `raysearch` that came from an index, and so is somebody
    else's; None where there is none.

    One of ours, from before it was renamed, was installed from a folder or file, which its
    direct_url.json says (PEP 610).
    """
    for found in _installed(TAKEN):
        if found.read_text("direct_url.json") is None:
            what = found.metadata["Summary"] or "no summary"
            return (
                f"{TAKEN} {found.version} is installed too, from an index: that is somebody else's "
                f"project ({what}), whose files stand "
                f"where ours do; pip uninstall {TAKEN}, and install {DISTRIBUTION} anew from its "
                f"sources"
            )
    return None


def _installed(name: str) -> Iterator[Distribution]:
    """What was installed under `name`. An .egg-info, which a build leaves in the checkout, is no
    installation: it has no METADATA."""
    return (found for found in distributions(name=name) if found.read_text("METADATA") is not None)


def needs(but: tuple[str, ...] = ("ray",)) -> tuple[str, ...]:
    """What our code needs of others, as pip takes it, without extras. `but`: what a node has of its
    own. Raises: RaysearchError."""
    found = [text for text in own().requires or () if ";" not in text]  # behind it stand extras
    return tuple(text for text in found if re.split(r"[^\w.-]", text, maxsplit=1)[0] not in but)


def wheel() -> tuple[str, bytes]:
    """(file name, content) of a wheel of the code that runs here. Raises: RaysearchError where it
    was never installed."""
    ours = own()
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
    """Puts the wheel into a folder, which must be there; its path. Raises: RaysearchError,
    StoreError."""
    name, content = wheel()
    write_bytes_whole(to / name, content)
    return to / name


def _is_ours(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
