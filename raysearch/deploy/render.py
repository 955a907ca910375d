"""Renders the files that run a job on a cluster, from the package's templates.

Invariants: a missing template value is an error; users' text is quoted for the language it lands in
(shell, YAML); no file contains a secret, only its location.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raysearch.deploy.launchers import LAUNCHERS, ClusterOptions
from raysearch.deploy.settings import FILES_FOLDER, DeploySettings
from raysearch.errors import JobError
from raysearch.storage.atomic_write import write_below
from raysearch.storage.uris import without_credentials

TEMPLATES = Path(__file__).parent / "templates"

RAY_VERSION = "2.60.0"
"""The Ray version of the image (constraints.txt), which KubeRay requires."""

TORCH_VERSION = "2.13.0"
"""The torch version of a node (constraints.txt); the index determines its build."""

_NO_DIGEST = (
    " # its digest is your registry's: docker buildx imagetools inspect IMAGE; "
    "give --image IMAGE@sha256:..."
)
_PORTS = {"http": 80, "https": 443}
_END = ".j2"
_EXECUTABLE = (".sh", ".sbatch")


def render(settings: DeploySettings, target: str) -> dict[str, str]:
    """Renders the files of `target` (a folder of the templates); keys are relative paths.

    Raises: JobError for an option with a password in it, or an endpoint that is no URL.
    """
    _check_secrets(settings.cluster)
    files = {}
    for path in _files(target):
        name = path.relative_to(TEMPLATES).as_posix()
        text = path.read_text(encoding="utf-8")
        if name.endswith(_END):
            text = (
                _environment()
                .get_template(name)
                .render(s=settings, cluster=settings.cluster, **_values(settings))
            )
        files[name.removesuffix(_END)] = text
    return files | {f"{target}/{name}": text for name, text in settings.files.items()}


def _check_secrets(cluster: ClusterOptions) -> None:
    """Raises: JobError for an option whose URI has a password, a key or a token in it."""
    for option in fields(cluster):
        given = getattr(cluster, option.name)
        with suppress(ValueError):  # no URL at all
            if isinstance(given, str) and (shown := without_credentials(given)) != given:
                raise JobError(
                    f"--{option.name.replace('_', '-')} {shown}: was given with a password, and "
                    "no file here may hold a secret; leave it out, and give it as "
                    "deploy/README.md says"
                )


def write(files: Mapping[str, str], to: Path) -> list[Path]:
    """Writes `files` below `to`; returns their paths. Raises: StoreError if that fails."""
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
    """Returns values for several templates: commands that run or submit the job, and versions."""
    arguments = [settings.job, *settings.options]
    submit = ["raysearch", "submit", *arguments, "--address", "http://head:8265"]
    locations = (
        getattr(settings.cluster, "store", ""),
        getattr(settings.cluster, "tracking_uri", ""),
    )
    return {
        "command": shlex.join(["raysearch", "run", *arguments]),
        "submit": [*submit, "--store", locations[0], "--tracking-uri", locations[1]],
        "ray": RAY_VERSION,
        "torch": TORCH_VERSION,
        "digest": "" if "@sha256:" in getattr(settings.cluster, "image", "") else _NO_DIGEST,
        "port": _port(getattr(settings.cluster, "endpoint", "")),
    }


def _port(endpoint: str) -> int | None:
    """Returns the port of an object store's endpoint; None without an endpoint.

    Raises: JobError for an endpoint that is no URL.
    """
    try:
        url = urlsplit(endpoint)
        port = url.port
    except ValueError as e:
        raise JobError(f"--endpoint {endpoint!r}: is no URL ({e}); give it as https://HOST") from e
    if endpoint and (url.scheme not in _PORTS or not url.hostname):
        raise JobError(f"--endpoint {endpoint!r}: is no URL; give it as https://HOST")
    return port or _PORTS.get(url.scheme)


def _files(target: str) -> Iterator[Path]:
    """Yields the templates of a target; names that begin with "_" are included by others."""
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
    environment.filters["inside"] = lambda name: name.removeprefix(FILES_FOLDER)
    environment.filters["key"] = lambda name: name.removeprefix(FILES_FOLDER).replace(
        "/", "--"
    )  # a ConfigMap has no folders
    return environment


def _shell(value: str | Iterable[str]) -> str:
    """Quotes one word of a shell, or several."""
    return shlex.quote(value) if isinstance(value, str) else shlex.join(value)


def _yaml(value: object) -> str:
    """Formats a scalar or list as JSON on one line, which is valid YAML."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
