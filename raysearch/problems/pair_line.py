"""One line of a file of pairs: its fields, and the error for a line that is invalid.

Invariants: a field means the same in every file format; null counts as absent, since a table has
every field in every row; errors name the place and the field.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
)

from raysearch.causal import ONE_SOURCE, Input, Split, named_sources
from raysearch.core.pydantic_words import brief, in_words
from raysearch.errors import PairsError
from raysearch.problems.tensor_references import TensorFiles

INDEX = re.compile(r"__index_level_\d+__")
"""Column in which pandas stores the labels of a frame's rows, after sample, filter or
sort_values.
"""


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Tokens(_Fields):
    tokens: tuple[Annotated[int, Field(ge=0)], ...]


def _by_name(positions: Any) -> Any:
    """Returns positions as a mapping, if they are a list of {name, start, end}, {name, span} or
    {name, tokens}.

    Columns of these are accepted too; anything else is returned unchanged.

    Raises:
        PairsError: a list holds anything else, or names a position twice.
    """
    if isinstance(positions, dict) and _are_words(positions.get("name")):
        columns = {key: value for key, value in positions.items() if isinstance(value, list)}
        if len({len(column) for column in columns.values()}) == 1 and set(columns) <= _OF_ONE:
            positions = [
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ]
    if not isinstance(positions, list):
        return positions
    named: dict[Any, Any] = {}
    for one in positions:
        if (
            not isinstance(one, dict)
            or not isinstance(one.get("name"), str)
            or not set(one) <= _OF_ONE
        ):
            raise PairsError(
                f"positions: a list is of {{name, start, end}}, {{name, span: [start, end]}} or "
                f"{{name, tokens}} (got {brief(one)})"
            )
        name, at = (
            one["name"],
            {key: value for key, value in one.items() if key != "name" and value is not None},
        )
        if name in named:
            raise PairsError(f"positions.{_short(name)}: is given twice; keep one")
        if at.keys() & {"start", "end"}:
            at = {"start, end": [at.pop("start", None), at.pop("end", None)], **at}
        if len(at) > 1:
            raise PairsError(
                f"positions.{_short(name)}: says in several ways where it is ({', '.join(at)}); "
                f"keep one"
            )
        named[name] = at if "tokens" in at or not at else next(iter(at.values()))
    return named


def _are_words(names: Any) -> bool:
    """Says whether these are names, and not the span of a position that is itself called "name"."""
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


_OF_ONE = {"name", "start", "end", "span", "tokens"}


class _Text(_Fields):
    text: str
    positions: Annotated[
        dict[
            str,
            Annotated[
                Annotated[tuple[int, int], Tag("span")] | Annotated[_Tokens, Tag("tokens")],
                Discriminator(lambda at: "tokens" if isinstance(at, dict) else "span"),
            ],
        ],
        BeforeValidator(_by_name),
    ] = {}

    def input(self, _side: str, _tensors: TensorFiles) -> Input:
        spans = {name: at for name, at in self.positions.items() if isinstance(at, tuple)}
        tokens = {name: at.tokens for name, at in self.positions.items() if isinstance(at, _Tokens)}
        return Input(self.text, spans, tokens=tokens)


class _Tensor(_Fields):
    tensor: str
    positions: Annotated[dict[str, _Tokens], BeforeValidator(_by_name)] = {}

    def input(self, side: str, tensors: TensorFiles) -> Input:
        tokens = {name: at.tokens for name, at in self.positions.items()}
        try:
            stimulus = tensors[self.tensor]
        except PairsError as e:
            raise PairsError(f"{side}.tensor: {e}") from e
        return Input(stimulus=stimulus, tokens=tokens)


def _kind(side: Any) -> str:
    return "tensor" if isinstance(side, dict) and "tensor" in side else "text"


_Side = Annotated[
    Annotated[_Text, Tag("text")] | Annotated[_Tensor, Tag("tensor")], Discriminator(_kind)
]
_Word = Annotated[str, Field(min_length=1)]


class PairLine(_Fields):
    """The fields of a pair."""

    base: _Side
    source: _Side | None = None
    sources: Annotated[dict[_Word, _Side], Field(min_length=1)] | None = None
    answers: dict[str, _Word]
    counterfactual: Annotated[dict[_Word, _Word], Field(min_length=1)]
    split: Split | None = None
    set: str | None = None
    choices: tuple[_Word, ...] = ()

    @property
    def sources_by_name(self) -> dict[str, tuple[str, Any]]:
        """The field and the content of each source, by name."""
        several = {name: (f"sources.{name}", side) for name, side in (self.sources or {}).items()}
        return several if self.source is None else {ONE_SOURCE: ("source", self.source), **several}

    def inputs(self, tensors: TensorFiles) -> tuple[Input, dict[str, Input]]:
        """Returns the base, and each source by name.

        Raises:
            PairsError: a span is outside its text, or a tensor is missing.
        """
        sources = {
            name: side.input(field, tensors) for name, (field, side) in self.sources_by_name.items()
        }
        return self.base.input("base", tensors), sources


FIELDS = tuple(PairLine.model_fields)
EXAMPLE = (
    '{"base": {"text": "2+3="}, "source": {"text": "4+1="}, "answers": {"base": "5", '
    '"source": "5"}, "counterfactual": {"first": "7"}}'
)
"""A pair as a line of a file, for errors."""


def parse_line(raw: Any, where: Callable[[], str]) -> PairLine:
    """Returns the line of a value from JSON or Arrow.

    Args:
        where: returns the place of the line, for errors.

    Raises:
        PairsError: it is invalid; the text names place and field.
    """
    if not isinstance(raw, dict):
        raise PairsError(
            f"{where()}: is {type(raw).__name__}; a pair is an object such as {EXAMPLE}"
        )
    given = {
        key: _without_nulls(value)
        for key, value in raw.items()
        if value is not None and not INDEX.fullmatch(key)
    }
    if isinstance(
        answers := given.get("answers"), dict
    ):  # a source may ask nothing, and then has no answer
        given["answers"] = {
            name: answer for name, answer in answers.items() if name == "base" or answer != ""
        }
    try:
        line = PairLine.model_validate(given)
        check_names(
            tuple(line.sources_by_name),
            line.source is not None,
            line.sources is not None,
            line.answers,
            line.counterfactual,
        )
    except ValidationError as e:
        raise PairsError(f"{where()}: {_error_text(e, given)}") from e
    except PairsError as e:
        raise PairsError(f"{where()}: {e}") from e
    return line


def check_names(
    names: tuple[str, ...],
    has_source: bool,
    has_sources: bool,
    answers: Iterable[str],
    variables: Iterable[str],
) -> None:
    """Checks that answers and counterfactuals match the sources.

    Raises:
        PairsError: they do not.
    """
    if has_source == has_sources:
        raise PairsError(
            "source: give it or sources, not both"
            if has_source
            else "source: missing; a pair needs it"
        )
    wrong = next(
        (
            name
            for name in names
            if name == "base" or "," in name or "<-" in name or name != name.strip()
        ),
        None,
    )
    if wrong is not None:
        raise PairsError(
            f'sources.{_short(wrong)}: is no name of a source; give one without "<-" and commas, '
            f'and not "base"'
        )
    given = tuple(answers)
    if "base" not in given:
        raise PairsError("answers.base: missing; a pair needs it")
    for name in given:
        if name not in ("base", *names):
            raise PairsError(
                f"answers.{_short(name)}: unknown field; answers are of base, {', '.join(names)}"
            )
    for variable in variables:
        named = named_sources(variable)
        if any(name not in names for name in named) or (len(names) > 1 and not named):
            raise PairsError(
                f"counterfactual.{_short(variable)}: does not say from which of "
                f"{', '.join(names)} each variable is taken; write it as "
                f'"{_short(variable.partition("<-")[0])}<-{names[0]}", several with commas between'
            )


def _without_nulls(value: Any) -> Any:
    """Returns the value without nulls in it, since a table has every field in every row."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


def _as_an_example(given: Mapping[str, Any]) -> str:
    """Returns how a whole pair looks, for a line that has hardly anything of one, or a bare text
    for an input."""
    bare = any(isinstance(given.get(side), str) for side in ("base", "source"))
    return f", as in {EXAMPLE}" if bare or len(given.keys() & set(FIELDS)) < 2 else ""


def _error_text(error: ValidationError, given: Mapping[str, Any]) -> str:
    """Returns the first error in words."""
    first = error.errors()[0]
    base = given.get("base")
    if (
        isinstance(base, dict)
        and base
        and "text" not in base
        and all(str(key).isdecimal() for key in base)
    ):
        return (
            "is a table written column by column; write a pair a line "
            '(pandas: to_json(path, orient="records", lines=True))'
        )
    branches = {1: ("text", "tensor"), 4: ("span", "tokens") if "text" in first["loc"][1:2] else ()}
    if first["loc"][0] == "sources":
        branches = {
            2: ("text", "tensor"),
            5: ("span", "tokens") if "text" in first["loc"][2:3] else (),
        }
    field = ".".join(str(k) for i, k in enumerate(first["loc"]) if k not in branches.get(i, ()))
    if first["type"] == "missing":
        return f"{field}: missing; a pair needs it{_as_an_example(given)}"
    if first["type"] == "extra_forbidden":
        return f"{_short(field)}: unknown field; leave it out"
    if first["loc"][-1] == "tensor" and first["type"] == "string_type":
        return (
            f'{_short(field)}: should say where a tensor lies, "FILE.safetensors#KEY" (got '
            f"{brief(first['input'])}); its numbers go into that file, "
            "or into an Input(stimulus=...) of a problem in Python"
        )
    if first["loc"][0] in ("answers", "counterfactual") and isinstance(first["input"], list):
        return (
            f"{_short(field)}: is a list; a pair has one right answer: give it, and name what "
            "counts as it in the job's answer.aliases"
        )
    example = _as_an_example(given) if field in ("base", "source") else ""
    return f"{_short(field)}: {in_words(first)} (got {brief(first['input'])}){example}"


def _short(field: str) -> str:
    return field if len(field) <= 100 else f"{field[:96]} ..."
