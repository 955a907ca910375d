"""Jobs from a notebook's arguments: a path, YAML text, a dict, a Job or a Problem, and keywords
over it; objects in it are taken out.

    job_and_objects("jobs/quickstart.yaml", {"space": {"layers": [1]}})
    job_and_objects(None, {"problem": problem, "model": model, "space": {"layers": [1, 2]}})

Invariants: whatever a job file could say, means here what it means there; an object in the place of
a problem or model is noted in the job (job/placeholders.py), but for a model that was read from
files, which the job then names.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysearch.causal import Problem
from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.job.placeholders import is_note, note
from raysearch.job.yaml import parse_mapping, read_mapping
from raysearch.problems.pair_parts import kind_of
from raysearch.runner.resolution.given_objects import GivenObjects

_CODE = re.compile(r".+:[A-Za-z_]\w*|[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_OF_PATH = ("path", "revision", "trust_remote_code")
_OF_MODEL = (*_OF_PATH, "dtype", "device_map")


def job_and_objects(job: Any, keys: Mapping[str, Any]) -> tuple[Job, GivenObjects]:
    """Returns the job, and the objects in it. `keys`: rooms of a job, put over those of `job` key
    by key; None: not given.

    Raises: JobError, ModelError in one line.
    """
    keys = {room: value for room, value in keys.items() if value is not None}
    if isinstance(job, Job) and not keys:
        return job, GivenObjects()
    raw, where, folder = _raw(job)
    for room, value in keys.items():
        raw[room] = _over(room, raw.get(room), value)
    given = GivenObjects(_problem(raw), _model(raw))
    if folder is None:  # a file says its name, and answer.compare, itself
        raw.setdefault("name", _name(raw))
        if (
            given.model is not None
            and given.model.on_tensors
            and isinstance(raw.setdefault("answer", {}), dict)
        ):
            raw["answer"].setdefault("compare", "class")
    return Job.parse(_plain(raw), where, folder), given


def given_of(problem: Any, model: Any) -> GivenObjects:
    """Returns the objects that a run began with, given again. Raises: JobError, ModelError for
    anything else."""
    raw = {"problem": problem, "model": model}
    found = GivenObjects(_problem(raw), _model(raw))
    for name, value, taken in (("problem", problem, found.problem), ("model", model, found.model)):
        if value is not None and taken is None:
            raise JobError(
                f"{name}: got {value!r:.60}; give the object that the run began with, or leave it "
                f"out"
            )
    return found


def _raw(job: Any) -> tuple[dict[str, Any], str, Path | None]:
    """Returns the keys as given, what they are called in an error, and the folder of a file."""
    match job:
        case None:
            return {}, "job", None
        case Job():
            return job.model_dump(mode="json", by_alias=True), "job", None
        case Problem():
            return {"problem": job}, "job", None
        case Mapping():
            return dict(job), "job", None
        case str() if _is_yaml(job):
            return parse_mapping(job, "job", tuple(Job.model_fields)), "job", None
        case str() | Path():
            path = Path(job).expanduser()
            return read_mapping(path, tuple(Job.model_fields)), str(job), path.resolve().parent
    raise JobError(
        f"rs.run: got {type(job).__name__}; give the path of a job file, its text, a dict of its "
        f"keys, an rs.Job or an rs.Problem"
    )


def file_of(job: Any) -> Path | None:
    """Returns the file of a job that is given by its path; None for any other."""
    if isinstance(job, Path) or (isinstance(job, str) and not _is_yaml(job)):
        return Path(job).expanduser()
    return None


def _is_yaml(text: str) -> bool:
    """Says whether a text is YAML: a path has no line ends, no `key: value` and no braces at its
    beginning."""
    return (
        "\n" in text or text.lstrip().startswith("{") or (": " in text and not Path(text).exists())
    )


def _over(room: str, before: Any, value: Any) -> Any:
    """Returns a room of the job with the keys of `value` put over those of `before`. Another
    problem replaces the whole room; another model keeps the prompt format, and the dtype where it
    is read from files."""
    if room == "problem":
        return value
    if room == "model":
        value = value if isinstance(value, Mapping) else {"path": value}
        is_object = not isinstance(value.get("path", ""), str | Path)
        dropped = _OF_MODEL if is_object else _OF_PATH if "path" in value else ()
        before = (
            {k: v for k, v in before.items() if k not in dropped}
            if isinstance(before, Mapping)
            else {}
        )
    return (
        {**before, **value} if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    )


def _problem(raw: dict[str, Any]) -> Problem | None:
    """Returns the problem object in `raw`, if there is one, and puts a note in its place."""
    value = raw.get("problem")
    inner = value.get("use") if isinstance(value, Mapping) else value
    if isinstance(inner, Problem):
        others = [k for k in value if k != "use"] if isinstance(value, Mapping) else []
        if others:
            raise JobError(
                f"problem.{others[0]}: is not of a problem that is an object; leave it out"
            )
        raw["problem"] = {"use": note(inner.name)}
        return inner
    if callable(inner):
        name = getattr(inner, "__name__", type(inner).__name__)
        raise JobError(
            f"problem: {name} is a {type(inner).__name__}; call it, problem={name}(), to give the "
            f"rs.Problem that it makes"
        )
    if isinstance(value, str | Path):
        text = str(value)
        is_code = _CODE.fullmatch(text) and not _is_pairs(text) and not Path(text).exists()
        raw["problem"] = {"use" if is_code else "pairs": text}
    return None


def _model(raw: dict[str, Any]) -> Any:
    """Returns the loaded model in `raw` (a GivenModel), if there is one, and puts its path or a
    note in its place."""
    value = raw.get("model")
    inner = value.get("path") if isinstance(value, Mapping) else value
    if isinstance(inner, str | Path):
        raw["model"] = {**(value if isinstance(value, Mapping) else {}), "path": str(inner)}
    if inner is None or isinstance(inner, str | Path | int | float):
        return None
    from raysearch.notebook.model_arguments import given_model  # torch, asked for here alone

    model = given_model(inner)
    others = {k: v for k, v in value.items() if k != "path"} if isinstance(value, Mapping) else {}
    clash = next((k for k in others if k in _OF_MODEL), None)
    if clash is not None:
        raise JobError(
            f"model.{clash}: the model is loaded already; leave it out, or give its path in place "
            f"of the object"
        )
    raw["model"] = {**others, **_named(model)}
    return model


def _named(model: Any) -> dict[str, Any]:
    if model.source is None:
        return {"path": note(model.name, model.on_tensors), "dtype": model.dtype}
    source = model.source
    return {
        "path": source.path,
        "revision": source.revision,
        "dtype": source.dtype,
        "trust_remote_code": source.trust_remote_code,
    }


def _name(raw: Mapping[str, Any]) -> str:
    """Returns a name for the runs of a job that gives none: its problem's."""
    problem = raw.get("problem")
    named = (problem.get("use") or problem.get("pairs")) if isinstance(problem, Mapping) else None
    place = str(named or "").rpartition(":")[0] or str(named or "")
    name = place.strip("<>") if is_note(place) else Path(place).name.removesuffix(".gz")
    last = (
        name
        if is_note(place)
        else Path(name).stem
        if name.endswith(".py") or _is_pairs(name)
        else name.rpartition(".")[2]
    )
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-._")[:80] or "notebook"


def _is_pairs(name: str) -> bool:
    """Says whether a name is that of a file of pairs. The file may lie beside the job, where it
    cannot be looked for yet."""
    return kind_of(Path(name)) is not None or name.lower().endswith(".gz")


def _plain(value: Any) -> Any:
    """Converts a value to what YAML would hold: paths to text; ranges, tuples, arrays to lists;
    numbers of numpy to numbers."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset | range):
        return [
            _plain(v)
            for v in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)
        ]
    if hasattr(value, "tolist") and hasattr(value, "dtype") and hasattr(value, "shape"):
        return value.tolist()
    return value
