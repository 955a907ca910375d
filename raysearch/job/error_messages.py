"""A mistake in a job file, in one line: key path, what it got, what would do.

Invariants: of the many things that pydantic says about a value that fits no branch of a union, the
most telling one is said.
"""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from raysearch.core.control_kinds import JOB_CONTROLS
from raysearch.core.featurizers import IDENTITY, featurizers
from raysearch.core.key_types import Keys
from raysearch.core.option_names import or_text
from raysearch.core.pydantic_words import brief, in_words
from raysearch.suggest import did_you_mean

_PLAIN_SUBSPACE = (
    "should be full, or coordinates such as {coordinates: [0, 16]} or {coordinates: {from: 0, to: "
    "15}}"
)
*_FEATURIZERS, _LAST = (k.in_a_job for k in featurizers().values() if k is not IDENTITY)
_SUBSPACE = f"should be full, {{coordinates: [0, 16]}}, {', '.join(_FEATURIZERS)} or {_LAST}"

WORDS = {
    "model.prompt.special_tokens": "should be auto, true or false",
    "resources.replicas": "should be auto, or a whole number from 1",
    "resources.gpus": "should be auto, or a number from 0, such as 0.5 or 2",
    "resources.tokens": "should be auto, or a whole number from 1",
    "resources.memory": "should be auto, or a number of GiB above 0",
    "resources.deadline": "should be auto, or a number of seconds above 0",
    "resources.wait": "should be auto, or a number of seconds above 0",
    "resources.labels.*": "should be one value, or in(one, another), with or without a ! before "
    "it, such as in(H100, A100)",
    "resources.labels.*.[key]": "is no name of a label; it should be as in ray.io/accelerator-type",
    "name": "should be letters, digits, dots, dashes and underscores, such as capitals-2",
    "space.layers": "should be all, a list such as [0, 4, 8], or {from: 0, to: 11, step: 2}",
    "space.heads": "should be all (each head by itself), joint (the heads of a layer at once), or "
    "a list such as [0, 4]",
    "space.positions": "should be all, or a list such as [country, {country: {take: last}}, {x: "
    "{tokens: [12, 13]}}]",
    "space.subspaces": "should be a list such as [full, {das: [1, 4]}]",
    "space.subspaces.#": _SUBSPACE,
    "controls": "should be a list such as [random_subspace, arbitrary_labels]",
    "controls.#": f"should be {or_text(JOB_CONTROLS)}",
    "space.units": "should be a list of sets, each a list of units, such as [[{layer: 9, position: "
    "last}]]",
    "space.units.#": "should be a list of units that are interchanged at once, such as [{layer: 9, "
    "position: last}]",
    "space.units.#.#": "should be a unit, such as {layer: 9, position: last}",
    "space.units.#.#.subspace": _PLAIN_SUBSPACE,
}
"""The advice for each key, where pydantic's own words do not help; # stands for a place in a list,
* for any key."""

_KEY = 60
"""Characters of a key that are shown: one that is longer is no key of ours."""
_OURS = ("value_error", "extra_forbidden")
_RANGES = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def first_error(error: ValidationError, job: type[BaseModel]) -> str:
    """Returns one line for the first error: key path, what it got, what would do. `job`: the model
    of a whole job."""
    first = _most_telling(error.errors())
    keys = _key_path(first)
    path = ".".join(k if len(k) <= _KEY else f"{k[:_KEY]} ..." for k in keys) or "job"
    if first["type"] == "extra_forbidden":
        known = keys_at(keys[:-1], job)
        return f"{path}: unknown key; {did_you_mean(keys[-1], known)}allowed: {', '.join(known)}"
    if first["type"] == "missing":
        return f"{path}: missing; a job needs it"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{path}: {message[:1].lower() + message[1:]}"
    ours = (
        None
        if first["type"] in _RANGES
        else next((WORDS[kind] for kind in _kinds(keys) if kind in WORDS), None)
    )
    message = ours or in_words(first)
    return f"{path}: {message} (got {brief(first['input'])})"


def _kinds(keys: Sequence[str]) -> Iterator[str]:
    """Yields a key path in each of the forms that WORDS may have it in."""
    at = ["#" if k.isdigit() else k for k in keys]
    yield ".".join(at)
    yield ".".join([*at[:-1], "*"])
    yield ".".join([*at[:-2], "*", *at[-1:]])


def keys_at(path: Sequence[str], job: type[BaseModel]) -> list[str]:
    """Returns the keys of the job format at `path`."""
    model = job
    for key in path:
        if not key.isdigit():
            model = next(_models_in(model.model_fields[key].annotation))
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yields the models of keys in the type of a field, however deep: at most one in each of
    ours."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _most_telling(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """Returns the first error; of the branches of a union, the one that fits the value best: it
    fails deepest, by our own words, by its range.

    A key that is missing may be there under another name: an unknown key beside it is said before.
    """
    beside = [
        e
        for e in errors
        if e["type"] == "extra_forbidden" and _key_path(e)[:-1] == _key_path(errors[0])[:-1]
    ]
    if errors[0]["type"] == "missing" and beside:
        return beside[0]
    key = _key_path(errors[0])
    branches = [e for e in errors if _key_path(e)[: len(key)] == key]
    return max(
        branches, key=lambda e: (len(_key_path(e)), e["type"] in _OURS, e["type"] in _RANGES)
    )


def _key_path(error: ErrorDetails) -> list[str]:
    return [str(k) for k in error["loc"] if not _is_branch(str(k))]


def _is_branch(key: str) -> bool:
    """Says whether a part of pydantic's location names a branch of a union, not a key of the
    file."""
    return key.startswith(("literal[", "constrained-", "tuple[", "function-")) or key in _branches()


def _branches() -> set[str]:
    models, names = [Keys], {"int", "float", "str", "bool"}
    while models:
        below = models.pop().__subclasses__()
        names |= {m.__name__ for m in below}
        models += below
    return names
