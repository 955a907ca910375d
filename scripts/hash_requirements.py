"""Writes requirements.txt of deploy/ray: every package that a node needs, with its SHA-256, as `pip --require-hashes` takes it.

    .venv/bin/python scripts/hash_requirements.py && make render     # after a change of constraints.txt or pyproject.toml

Names and versions are those of constraints.txt, of what pyproject.toml names (extras `gguf` and `server` too) and all that this needs in
turn; digests are those that the index tells of the wheels for this Python on this machine: run it on Linux, x86-64, CPython 3.11, as the
image has. torch is left out, and what it alone needs: whoever builds chooses its build. So is raysearch: it is built from its sources.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
OUT = ROOT / "raysearch/deploy/templates/ray/wheels/requirements.txt"
EXTRAS = ("gguf", "server")
LEFT_OUT = ("torch",)
HEAD = """\
# What raysearch needs on a node, with the SHA-256 of each wheel: Linux, x86-64, CPython 3.11. Written by scripts/hash_requirements.py.
# torch first, in the build that your devices need; then: pip install --require-hashes --no-deps -r requirements.txt
"""


def main() -> None:
    pinned = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
    versions = {_name(name): version for name, version in pinned.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    asked += [r for extra in EXTRAS for r in project["project"]["optional-dependencies"][extra]]
    needed = sorted(_closure([Requirement(text) for text in asked]))
    missing = [name for name in needed if name not in versions]
    if missing:
        sys.exit(f"constraints.txt pins no {', '.join(missing)}, which are needed; add them")
    digests = _digests([f"{name}=={versions[name]}" for name in needed])
    lines = [f"{name}=={versions[name]} --hash=sha256:{digests[name]}" for name in needed]
    OUT.write_text(HEAD + "\n".join(lines) + "\n")


def _closure(asked: list[Requirement]) -> set[str]:
    """The names of all that is needed, as far as it is installed here."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    while asked:
        one = asked.pop()
        name = _name(one.name)
        if name in LEFT_OUT:
            continue
        found.add(name)
        for extra in ("", *one.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needs = distribution(one.name).requires or []
            except PackageNotFoundError:
                sys.exit(
                    f"{one.name} is needed and not installed here; pip install -e '.[{','.join(EXTRAS)}]' -c constraints.txt"
                )
            parsed = [Requirement(text) for text in needs]
            asked += [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return found


def _digests(pins: list[str]) -> dict[str, str]:
    """The SHA-256 of the wheel (or archive) of each pin, as the index tells it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--no-deps",
        ]
        subprocess.run([*command, "--report", str(report), *pins], check=True)
        found = json.loads(report.read_text())["install"]
    return {
        _name(i["metadata"]["name"]): i["download_info"]["archive_info"]["hashes"]["sha256"]
        for i in found
    }


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
