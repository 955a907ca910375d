"""The job itself: read, checked, written down, hashed."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError

from raysearch.core.control_kinds import Control, job_control_meanings
from raysearch.core.featurizers import warn_of_unusable
from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import canonical_json
from raysearch.core.key_types import Keys, each_once
from raysearch.core.model_source import ModelSource
from raysearch.core.option_names import meanings_text
from raysearch.core.prompt_format import PromptFormat
from raysearch.errors import JobError
from raysearch.job.error_messages import first_error
from raysearch.job.file_keys import MODEL, PAIRS, PROBLEM, PROPOSER, Away, NamedFile, none_away
from raysearch.job.keys import AnswerKeys, ModelKeys, PairsKeys, ProblemKeys, TestKeys
from raysearch.job.propose_keys import ProposeKeys
from raysearch.job.resources_keys import ResourcesKeys
from raysearch.job.space_keys import SpaceKeys
from raysearch.job.subspace_keys import SubspaceKeys
from raysearch.job.yaml import assign, parse_mapping, read_mapping
from raysearch.storage.uris import without_credentials
from raysearch.visible_text import one_line, shorten

_COMMIT = re.compile(r"[0-9a-f]{40}")
"""A branch or tag of a hub may be moved."""


NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$"
"""The pattern of a job's name."""


class Job(Keys):
    """One search, as it is asked. Everything that changes an answer is here; flags say only where
    and how loud."""

    name: Annotated[str, Field(pattern=NAME)] = Field(
        description="Names the runs; the MLflow experiment is `raysearch/NAME`."
    )
    model: ModelKeys
    problem: ProblemKeys
    pairs: PairsKeys = PairsKeys()
    answer: AnswerKeys = AnswerKeys()
    space: SpaceKeys = SpaceKeys()
    fit: FitKeys = FitKeys()
    test: TestKeys = TestKeys()
    propose: ProposeKeys = ProposeKeys()
    controls: Annotated[tuple[Control, ...], AfterValidator(each_once)] = Field(
        default=(),
        description="Interventions that prove nothing, tested beside what is found as hypotheses "
        "of their own, which do not count among the hypotheses. "
        f"{meanings_text(job_control_meanings())}.",
    )
    resources: ResourcesKeys = ResourcesKeys()

    def __init__(self, **keys: Any) -> None:
        """Raises: JobError in one line, as all that makes a job does."""
        try:
            super().__init__(**keys)
        except ValidationError as e:
            raise JobError(f"job: {first_error(e, type(self))}") from None

    # `parse` validates without it, and says where the job is from
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def load(cls, path: str | Path, sets: Sequence[str] = (), away: Away = none_away) -> "Job":
        """Returns the job of a YAML file, with `sets` ("a.b=c", c typed as YAML) put in. Raises:
        JobError in one line.

        `away`: which files are on other machines; their paths stay as written, and are not looked
        for.
        """
        path = Path(path)
        raw = read_mapping(path, tuple(cls.model_fields))
        for assignment in sets:
            assign(raw, assignment)
        job = cls.parse(raw, where=str(path), folder=path.resolve().parent, away=away)
        job.refuse_placeholders(str(path))
        return job

    @classmethod
    def read(
        cls, text: str, where: str, folder: Path | None = None, away: Away = none_away
    ) -> "Job":
        """Returns the job of a YAML text; `where`, `folder` and `away` as of `parse`. Raises:
        JobError in one line."""
        return cls.parse(
            parse_mapping(text, where, tuple(cls.model_fields)),
            where=where,
            folder=folder,
            away=away,
        )

    @classmethod
    def parse(
        cls,
        raw: Mapping[str, Any],
        where: str = "job",
        folder: Path | None = None,
        away: Away = none_away,
    ) -> "Job":
        """Returns the job of a mapping; relative paths are taken from `folder`. Raises: JobError in
        one line."""
        try:
            job = cls.model_validate(raw, context=away)
        except ValidationError as e:
            # Without its cause: the line has all that pydantic's error says.
            raise JobError(f"{where}: {first_error(e, cls)}") from None
        folder = folder or Path.cwd()
        model_here = not away(NamedFile(MODEL, job.model.path))
        if model_here and not job.model.is_factory and not job.model.is_given:
            _check_model(job.model.path, folder, where)
        job = job.with_paths(
            lambda file: file.path if away(file) else _absolute(file, job.model, folder, where)
        )
        if model_here:
            _check_trust(job.model, where)
        warn_of_unusable()
        return job

    def to_yaml(self) -> str:
        """Returns the job as resolved: every key, paths absolute."""
        return yaml.safe_dump(
            self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True
        )

    @property
    def prompt_format(self) -> PromptFormat:
        """The format of prompts and the part of answers that counts."""
        prompt, answer = self.model.prompt, self.answer
        special = None if prompt.special_tokens == "auto" else prompt.special_tokens
        return PromptFormat(prompt.chat_template, special, answer.compare, answer.aliases)

    @property
    def source(self) -> ModelSource:
        """The place of the model, for code that loads or inspects it."""
        keys = self.model.model_dump(exclude={"prompt"})
        return ModelSource(
            **keys, prompt_format=self.prompt_format, is_factory=self.model.is_factory
        )

    def _content(self) -> dict[str, Any]:
        """Returns the keys that change an answer; one that runs of before lack only where it is not
        as they did."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"name", "resources"})
        if not self.test.above_baselines:
            del content["test"]["above_baselines"]
        for key, default in (("horizon", "auto"), ("reserve", 0.0)):
            if content["test"][key] == default:
                del content["test"][key]
        if self.test.control == "fwer":
            del content["test"]["control"]
        return content

    def digest(self) -> str:
        """Returns SHA-256 (hex) of the job as resolved, `name` and `resources` left out: whether a
        kept job was edited."""
        content = self._content()
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    def hash(self, files: Mapping[str, str], pairs: str) -> str:
        """Returns SHA-256 (hex) of what changes an answer: not `name`, not `resources`, no path.

        `files`: digest of each file or folder that the job names, by key ("model.path",
        "problem.use", "propose.use", "sae PATH"); `pairs`: digest of the pairs.
        """
        content = self._content()
        content["problem"].pop("pairs")
        for keys in content["space"]["subspaces"]:
            if isinstance(keys, dict) and "sae" in keys:
                keys["sae"]["path"] = files[f"sae {keys['sae']['path']}"]
        for key in ("model.path", "problem.use", "propose.use"):
            if key in files:
                room, name = key.split(".")
                content[room][name] = files[key]
        return hashlib.sha256(canonical_json({"job": content, "pairs": pairs}).encode()).hexdigest()

    def with_paths(self, place: Callable[[NamedFile], str]) -> "Job":
        """Returns the job with each path that it names put where `place` says; the name of a
        function stays behind its file."""
        model, problem = self.model, self.problem
        if model.factory_file is not None:
            model = model.model_copy(update={"path": _function(MODEL, model.path, place)})
        elif not model.is_factory and not model.is_given:
            model = model.model_copy(update={"path": place(NamedFile(MODEL, model.path))})
        if problem.pairs is not None:
            problem = problem.model_copy(update={"pairs": place(NamedFile(PAIRS, problem.pairs))})
        elif problem.use is not None and ".py:" in problem.use and not problem.is_given:
            problem = problem.model_copy(update={"use": _function(PROBLEM, problem.use, place)})
        propose, space = self.propose, _space(self.space, place)
        if propose.file is not None:
            propose = propose.model_copy(update={"use": _function(PROPOSER, propose.use, place)})
        return self.model_copy(
            update={"model": model, "problem": problem, "space": space, "propose": propose}
        )

    def refuse_placeholders(self, where: str, problem: bool = False, model: bool = False) -> None:
        """Raises: JobError for a note whose object is not here. `problem`, `model`: whether it
        is."""
        if self.problem.is_given and not problem:
            raise JobError(
                f"{where}: problem.use: {self.problem.use} is a problem that rs.run was given as "
                f"an object, and no file has it; give it again, "
                "rs.run(job, problem=problem), or name my_file.py:problem"
            )
        if self.model.is_given and not model:
            raise JobError(
                f"{where}: model.path: {self.model.path} is a model that rs.run was given as an "
                f"object, and no file has it; give it again, "
                "rs.run(job, model=model), or name a folder, a .gguf file or a hub id"
            )


def _absolute(file: NamedFile, model: ModelKeys, folder: Path, where: str) -> str:
    """Raises: JobError for a function of a file that is not there."""
    _check_path(file.key, file.path, folder, where)
    local = (folder / Path(file.path).expanduser()).resolve()
    if file.key == MODEL:
        if not model.is_factory:
            return str(local) if local.exists() else file.path
        if not local.is_file():
            raise JobError(
                f"{where}: model.path: there is no file {local}; give my_file.py:factory with a "
                f"file beside the job"
            )
    elif file.is_remote:
        return _remote(file, where)
    return str(local)


def _remote(file: NamedFile, where: str) -> str:
    """Raises: JobError for what is read from disk alone, and for a password, which all who see the
    job would read."""
    shown = without_credentials(file.path)
    if file.key != PAIRS:
        raise JobError(
            f"{where}: {file.key}: {shown}: only problem.pairs is read from an object store; give "
            f"a path here"
        )
    if shown != file.path:
        raise JobError(
            f"{where}: {file.key}: {shown}: held a password, which all who see the job would read; "
            "leave it out, and give the rights to whoever runs the job by its environment or role"
        )
    return file.path


def _check_trust(model: ModelKeys, where: str) -> None:
    """Raises: JobError for code of a hub that may be another tomorrow."""
    if (
        not model.trust_remote_code
        or Path(model.path).is_absolute()
        or _COMMIT.fullmatch(model.revision or "")
    ):
        return
    what = model.path if model.revision is None else f"{model.path} at {model.revision}"
    raise JobError(
        f"{where}: model.trust_remote_code: true would run whatever {what} holds on the day it is "
        "loaded; pin it: give model.revision a commit, 40 hex digits"
    )


def _check_path(key: str, path: str, folder: Path, where: str) -> None:
    """Raises: JobError for a text that can be no path here."""
    try:
        (folder / Path(path).expanduser()).stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError, RuntimeError) as e:  # too long; a NUL character; no such user
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise JobError(
            f"{where}: {key}: {shorten(path, 100)!r} can be no path here ({one_line(why)})"
        ) from e


def _check_model(path: str, folder: Path, where: str) -> None:
    """Raises: JobError for what is neither there nor a hub id."""
    _check_path(MODEL, path, folder, where)
    local = folder / Path(path).expanduser()
    if local.exists():
        return
    if ":" in path and not Path(path).is_absolute():
        raise JobError(
            f"{where}: model.path: {path!r} names no function; give my_file.py:factory or "
            f"package.module:factory, with one colon"
        )
    if path.startswith((".", "/", "~")) or path.endswith(".gguf") or path.count("/") > 1:
        raise JobError(
            f"{where}: model.path: there is no {local}; give a folder with a model, a .gguf file "
            f"or a hub id"
        )


def _function(key: str, named: str, place: Callable[[NamedFile], str]) -> str:
    file, _, name = named.rpartition(":")
    return f"{place(NamedFile(key, file))}:{name}"


def _space(space: SpaceKeys, place: Callable[[NamedFile], str]) -> SpaceKeys:
    def subspace(i: int, keys: SubspaceKeys) -> SubspaceKeys:
        sae = getattr(keys, "sae", None)
        if isinstance(keys, str) or sae is None:
            return keys
        path = place(NamedFile(f"space.subspaces.{i}.sae.path", sae.path))
        return keys.model_copy(update={"sae": sae.model_copy(update={"path": path})})

    return space.model_copy(
        update={"subspaces": tuple(subspace(i, keys) for i, keys in enumerate(space.subspaces))}
    )
