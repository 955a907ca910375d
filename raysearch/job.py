"""Job: one search, as a file asks for it; frozen and validated. The job says what, flags say only where.

Invariants: unknown keys are errors that name the nearest right one; keys and values that the format knows and this version does
not support are refused, never ignored; paths are absolute once loaded, relative ones being taken from the job file's folder.
"""

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from raysearch.errors import JobError, NotYetError
from raysearch.search.hypothesis import canonical_json

Rate = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class ModelKeys(_Keys):
    """Which network. `path`: a local folder, a .gguf file, or a hub id (then `revision` may pin it)."""

    path: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class ProblemKeys(_Keys):
    """Which problem: `use` names a ready one or "my_file.py:problem"; or `pairs` names a file of pairs."""

    use: str | None = None
    pairs: str | None = None
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_of_two(self) -> "ProblemKeys":
        if (self.use is None) == (self.pairs is None):
            raise ValueError('give one of "use" (a problem) and "pairs" (a file of pairs)')
        if self.pairs is not None and self.options:
            raise ValueError('"options" are for a problem ("use"), not for a file of pairs')
        return self


class PairsKeys(_Keys):
    """How many pairs of each split, after screening; the seed of drawing and of order; only those that the model solves."""

    test: Positive = 512
    fit: Count = 512
    holdout: Count = 128
    seed: int = 0
    solved_only: bool = True


class AnswerKeys(_Keys):
    """What of an answer is compared."""

    compare: Literal["first_token"] = "first_token"


class LayerRange(_Keys):
    """Layers from `from` to `to`, both included, every `step`."""

    from_: Count = Field(alias="from")
    to: Count
    step: Positive = 1

    @model_validator(mode="after")
    def _rises(self) -> "LayerRange":
        if self.to < self.from_:
            raise ValueError(f"from {self.from_} to {self.to} holds no layer; give from <= to")
        return self


class SpaceKeys(_Keys):
    """Where to look. None: all variables of the causal model; all positions of the problem and "last"."""

    variables: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    layers: Literal["all"] | Annotated[tuple[Count, ...], Field(min_length=1)] | LayerRange = "all"
    components: Annotated[tuple[Literal["residual"], ...], Field(min_length=1)] = ("residual",)
    positions: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    subspaces: Annotated[tuple[Literal["full"], ...], Field(min_length=1)] = ("full",)

    @model_validator(mode="after")
    def _nothing_twice(self) -> "SpaceKeys":
        for key in ("variables", "layers", "components", "positions", "subspaces"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(set(value)) < len(value):
                twice = next(v for v in value if value.count(v) > 1)
                raise ValueError(f"{key} names {twice!r} twice; name each once")
        return self


class TestKeys(_Keys):
    """When to believe it. `false_accept`: chance of any false accept in the search; `miss`: of rejecting one true hypothesis."""

    use: Literal["sequential"] = "sequential"
    claim: Literal["auto", "sampler", "these_pairs"] = "auto"
    threshold: Rate = 0.8
    false_accept: Rate = 0.05
    miss: Rate = 0.05
    max_pairs: Positive = 512


class ProposeKeys(_Keys):
    """Which hypotheses to test next."""

    use: Literal["exhaustive"] = "exhaustive"


class ResourcesKeys(_Keys):
    """What each replica may use, and how many there are; `rows`: rows of one forward pass, and of a task. Changes no answer."""

    replicas: Literal["auto"] | Positive = "auto"
    gpus: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    cpus: Positive = 1
    rows: Positive = 64


class Job(_Keys):
    """One search."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
    model: ModelKeys
    problem: ProblemKeys
    pairs: PairsKeys = PairsKeys()
    answer: AnswerKeys = AnswerKeys()
    space: SpaceKeys = SpaceKeys()
    test: TestKeys = TestKeys()
    propose: ProposeKeys = ProposeKeys()
    resources: ResourcesKeys = ResourcesKeys()

    @classmethod
    def load(cls, path: str | Path, sets: Sequence[str] = ()) -> "Job":
        """The job of a YAML file, with `sets` ("a.b=c", c typed as YAML) put in. Raises: JobError in one line."""
        path = Path(path)
        try:
            raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        except OSError as e:
            raise JobError(f"{path}: cannot be read ({e.strerror}); give the path of a job file") from e
        except UnicodeDecodeError as e:
            raise JobError(f"{path}: is no text in UTF-8 (byte {e.start}); a job file is YAML") from e
        except yaml.YAMLError as e:
            raise JobError(f"{path}: {_one_line(e)}") from e
        if not isinstance(raw, dict):
            raise JobError(
                f"{path}: holds {_kind(raw)}; a job file is a mapping with the keys {', '.join(cls.model_fields)}"
            )
        for assignment in sets:
            _assign(raw, assignment)
        return cls.parse(raw, where=str(path), folder=path.resolve().parent)

    @classmethod
    def parse(cls, raw: Mapping[str, Any], where: str = "job", folder: Path | None = None) -> "Job":
        """The job of a mapping; relative paths are taken from `folder`. Raises: JobError, NotYetError in one line."""
        for path, value in _flat(raw):
            if _is_not_yet(path, value):
                instead = f"use {SUPPORTED[path]}" if path in SUPPORTED else "leave it out"
                raise NotYetError(
                    f"{where}: {path}: not yet supported by this version (got {_brief(value)}); {instead}"
                )
        try:
            job = cls.model_validate(raw)
        except ValidationError as e:
            raise JobError(f"{where}: {_first_error(e)}") from e
        return _absolute(job, folder or Path.cwd(), where)

    def to_yaml(self) -> str:
        """The job as resolved: every key, paths absolute."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)

    def digest(self) -> str:
        """SHA-256 (hex) of the job as resolved, `name` and `resources` left out: whether a kept job was edited."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"name", "resources"})
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    def hash(self, files: Mapping[str, str], pairs: str) -> str:
        """SHA-256 (hex) of what changes an answer: not `name`, not `resources`, no path.

        `files`: digest of each file or folder that the job names, by key ("model.path", "problem.use"); `pairs`: digest of the pairs.
        """
        content = self.model_dump(mode="json", by_alias=True, exclude={"name", "resources"})
        content["problem"].pop("pairs")
        for key, digest in files.items():
            room, name = key.split(".")
            content[room][name] = digest
        return hashlib.sha256(canonical_json({"job": content, "pairs": pairs}).encode()).hexdigest()


NOT_YET_KEYS = (
    "model.device_map",
    "model.prompt",
    "pairs.kinds",
    "pairs.disjoint",
    "answer.aliases",
    "answer.scores",
    "space.heads",
    "space.units",
    "fit",
    "test.indifference",
    "test.keep_threshold",
    "test.pairs",
    "controls",
)
"""Keys of the job format that this version refuses."""

NOT_YET_VALUES: Mapping[str, tuple[str, ...]] = {
    "answer.compare": ("sequence", "class", "choices"),
    "space.components": (
        "block_input", "embedding", "attention_output", "mlp_output", "mlp_activation", "head", "query", "key", "value",
    ),
    "space.positions": ("all",),
    "space.subspaces": ("das", "boundless", "mask", "pca", "svd", "mean_difference", "random", "sae", "coordinates"),
    "test.use": ("fixed",),
    "propose.use": ("refine", "smallest_subspace", "attribution"),
}  # fmt: skip
"""Values of the job format that this version refuses; a mapping among them is told by its only key."""

SUPPORTED = {
    "answer.compare": "first_token",
    "space.components": "residual",
    "space.positions": "the names of positions",
    "space.subspaces": "full",
    "test.use": "sequential",
    "propose.use": "exhaustive",
}
"""What this version takes in their place."""

WORDS = {
    "name": "should be letters, digits, dots, dashes and underscores, such as capitals-2",
    "space.layers": "should be all, a list such as [0, 4, 8], or {from: 0, to: 11, step: 2}",
}
"""What would do, where pydantic's own words do not help."""


class _Loader(yaml.SafeLoader):
    """YAML as a reader expects it: a key given twice is an error, 1e-3 is a number."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (list, dict)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice; keep one", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _assign(raw: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise JobError(f"--set {assignment}: is not of the form key.path=value, such as --set test.threshold=0.9")
    *folders, last = key.split(".")
    place = raw
    for folder in folders:
        place = place.setdefault(folder, {})
        if not isinstance(place, dict):
            raise JobError(f"--set {assignment}: {folder} is no mapping in the job file")
    try:
        place[last] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as e:
        raise JobError(f"--set {assignment}: {_one_line(e)}") from e


def _flat(raw: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key path, value) of every key of the first two levels."""
    for room, value in raw.items():
        yield str(room), value
        if isinstance(value, dict):
            yield from ((f"{room}.{key}", v) for key, v in value.items())


def _is_not_yet(path: str, value: Any) -> bool:
    if path in NOT_YET_KEYS:
        return True
    words = NOT_YET_VALUES.get(path, ())
    values = value if isinstance(value, list) else [value]
    if path == "propose.use" and isinstance(value, str) and ":" in value:
        return True
    if path == "space.components" and any(isinstance(v, str) and "." in v for v in values):
        return True
    if path == "space.positions" and any(isinstance(v, dict) for v in values):
        return True
    return any(
        (next(iter(v), None) if isinstance(v, dict) else v) in words for v in values if isinstance(v, (str, dict))
    )


def _first_error(error: ValidationError) -> str:
    """One line for the first error: key path, what it got, what would do."""
    first = _most_telling(error.errors())
    keys = _key_path(first)
    path = ".".join(keys) or "job"
    if first["type"] == "extra_forbidden":
        known = _keys_at(keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{path}: unknown key; {hint}allowed: {', '.join(known)}"
    if first["type"] == "missing":
        return f"{path}: missing; a job needs it"
    message = first["msg"].removeprefix("Value error, ")
    if path in WORDS and first["type"] != "value_error":
        message = WORDS[path]
    got = "" if first["type"] == "value_error" else f" (got {_brief(first['input'])})"
    return f"{path}: {message[:1].lower() + message[1:]}{got}"


def _most_telling(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """The first error; of the branches of a union, the one that fits the value best: it fails deepest, or by our own words."""
    key = _key_path(errors[0])
    branches = [e for e in errors if _key_path(e)[: len(key)] == key]
    return max(branches, key=lambda e: (len(_key_path(e)), e["type"] in ("value_error", "extra_forbidden")))


def _key_path(error: ErrorDetails) -> list[str]:
    return [str(k) for k in error["loc"] if not _is_branch(str(k))]


def _is_branch(key: str) -> bool:
    """Whether a part of pydantic's location names a branch of a union, not a key of the file."""
    return key.startswith(("literal[", "constrained-", "tuple[", "function-")) or key in (
        "LayerRange",
        "int",
        "float",
        "str",
    )


def _keys_at(path: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Job
    for key in path:
        annotation = model.model_fields[key].annotation
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else LayerRange
    own = [field.alias or name for name, field in model.model_fields.items()]
    prefix = ".".join([*path, ""])
    later = [k.removeprefix(prefix) for k in NOT_YET_KEYS if k.startswith(prefix) and "." not in k.removeprefix(prefix)]
    return own + later


def _absolute(job: Job, folder: Path, where: str) -> Job:
    model = job.model.model_copy(update={"path": _model_path(job.model.path, folder, where)})
    problem = job.problem
    if problem.pairs is not None:
        problem = problem.model_copy(update={"pairs": str((folder / problem.pairs).resolve())})
    elif problem.use is not None and ".py:" in problem.use:
        file, _, name = problem.use.rpartition(":")
        problem = problem.model_copy(update={"use": f"{(folder / file).resolve()}:{name}"})
    return job.model_copy(update={"model": model, "problem": problem})


def _model_path(path: str, folder: Path, where: str) -> str:
    local = folder / Path(path).expanduser()
    if local.exists():
        return str(local.resolve())
    if ":" in path and not Path(path).is_absolute():
        raise NotYetError(f"{where}: model.path: {path!r} (module:factory) is not yet supported by this version")
    if path.startswith((".", "/", "~")) or path.endswith(".gguf") or path.count("/") > 1:
        raise JobError(
            f"{where}: model.path: there is no {local}; give a folder with a model, a .gguf file or a hub id"
        )
    return path


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _kind(raw: Any) -> str:
    return "nothing" if raw is None else f"a {type(raw).__name__}"


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return " ".join(f"{place}{what}".split())
