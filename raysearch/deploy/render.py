"""The files that run a job on a cluster, filled in from templates that are part of the package.

Invariants: a template that names what it is not given is an error; what comes from a user is quoted
for the language that it lands in (shell, YAML); no file holds a secret, only the name of where it
lies.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raysearch.deploy.launchers import LAUNCHERS
from raysearch.deploy.settings import BESIDE, DeploySettings
from raysearch.storage.atomic_write import write_below

TEMPLATES = Path(__file__).parent / "templates"

RAY_VERSION = "2.60.0"
"""What the image holds (constraints.txt); KubeRay wants to be told."""

TORCH_VERSION = "2.13.0"
"""What a node gets (constraints.txt), in the build that its index has."""

_END = ".j2"
_EXECUTABLE = (".sh", ".sbatch")


def render(settings: DeploySettings, target: str) -> dict[str, str]:
    """The files of `target` (a folder of the templates), by their path from the folder that they
    are to be put in."""
    files = {}
    for path in _files(target):
        name = path.relative_to(TEMPLATES).as_posix()
        text = path.read_text(encoding="utf-8")
        if name.endswith(_END):
            text = (
                _environment()
                .get_template(name)
                .render(s=settings, place=settings.place, **_values(settings))
            )
        files[name.removesuffix(_END)] = text
    return files | {f"{target}/{name}": text for name, text in settings.beside.items()}


def write(files: Mapping[str, str], to: Path) -> list[Path]:
    """Writes `files` below `to`; the paths written. Raises: StoreError if one cannot be written."""
    paths = []
    for name, text in files.items():
        path = to / name
        to.mkdir(parents=True, exist_ok=True)
        write_below(to, path.relative_to(to).parts, text.encode())
        if path.suffix in _EXECUTABLE:
            path.chmod(0o755)
        paths.append(path)
    return paths


def _values(settings: DeploySettings) -> dict[str, object]:
    """What several templates need: the driver's command, the same as a submission, and versions."""
    behind = [settings.job, *settings.options]
    submit = ["raysearch", "submit", *behind, "--address", "http://head:8265"]
    where = getattr(settings.place, "store", ""), getattr(settings.place, "tracking_uri", "")
    return {
        "command": shlex.join(["raysearch", "run", *behind]),
        "submit": [*submit, "--store", where[0], "--tracking-uri", where[1]],
        "ray": RAY_VERSION,
        "torch": TORCH_VERSION,
    }


def _files(target: str) -> Iterator[Path]:
    """The templates of a target; a name that begins with "_" is part of others."""
    for folder in (target, *LAUNCHERS[target].shared):
        yield from sorted(
            p for p in (TEMPLATES / folder).rglob("*") if p.is_file() and not p.name.startswith("_")
        )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        comment_start_string="{!#",  # bash has {# in ${#array[@]}
        comment_end_string="#!}",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sh"] = _shell
    environment.filters["yaml"] = _yaml
    environment.filters["inside"] = lambda name: name.removeprefix(BESIDE)
    environment.filters["key"] = lambda name: name.removeprefix(BESIDE).replace(
        "/", "--"
    )  # a ConfigMap has no folders
    return environment


def _shell(value: str | Iterable[str]) -> str:
    """One word of a shell, or several."""
    return shlex.quote(value) if isinstance(value, str) else shlex.join(value)


def _yaml(value: object) -> str:
    """A scalar or list on one line: JSON, which every YAML reader takes."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
