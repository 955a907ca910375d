"""Checks by columns whether all rows of a batch are valid pairs: a hundred times faster than row by
row.

Invariants: a batch that passes here also passes row by row, with the same meaning; any doubtful
batch fails here, and is checked row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from raysearch.causal import LAST, ONE_SOURCE, Split
from raysearch.errors import PairsError
from raysearch.problems.pair_line import check_names

_PLAIN = {"base", "source", "answers", "counterfactual", "split", "set", "choices"}


@dataclass(frozen=True)
class PlainPairs:
    """A batch in which every row is a pair of texts with one source; `contents` has (base, source)
    of each row.
    """

    variables: frozenset[str]
    sources: frozenset[str]
    contents: Sequence[tuple[str, str]]
    splits: Sequence[Split | None]
    sets: Sequence[str | None]


def plain_pairs(table: pa.Table | None) -> PlainPairs | None:
    """Returns the pairs of a table, or None if they must be checked one by one."""
    if table is None or not len(table) or len(set(table.column_names)) < len(table.column_names):
        return None
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    columns = {name: column for name, column in columns.items() if column.null_count < len(column)}
    if not {"base", "source", "answers", "counterfactual"} <= set(columns) <= _PLAIN:
        return None
    base, source = _texts(columns["base"]), _texts(columns["source"])
    answers, answered = _words(columns["answers"], optional=(ONE_SOURCE,))
    variables, always = _words(columns["counterfactual"], optional=())
    splits, sets = _column(columns, "split"), _column(columns, "set")
    if (
        base is None
        or source is None
        or splits is None
        or sets is None
        or not answered
        or not always
        or not variables
    ):
        return None
    if not set(splits) <= {None, *get_args(Split)} or not _are_choices(columns.get("choices")):
        return None
    try:
        check_names((ONE_SOURCE,), True, False, answers, variables)
    except PairsError:
        return None  # the check row by row says where
    return PlainPairs(
        frozenset(variables),
        frozenset((ONE_SOURCE,)),
        tuple(zip(base, source, strict=True)),
        splits,
        sets,
    )


def _fields(struct: Any) -> dict[str, Any] | None:
    """Returns the columns of a struct without nulls, except columns that are null in all rows; None
    for anything else.
    """
    if not pa.types.is_struct(struct.type) or struct.null_count:
        return None
    names = [struct.type.field(i).name for i in range(struct.type.num_fields)]
    if len(set(names)) < len(names):
        return None
    found = dict(zip(names, struct.flatten(), strict=True))
    return {name: column for name, column in found.items() if column.null_count < len(column)}


def _strings(column: Any) -> Any:
    """Returns the column as strings; None if it has another type."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return (
        column if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) else None
    )


def _texts(side: Any) -> list[str] | None:
    """Returns the texts of a base or source column; None if a position is outside its text."""
    fields = _fields(side)
    if fields is None or "text" not in fields or not set(fields) <= {"text", "positions"}:
        return None
    text = _strings(fields["text"])
    if text is None or text.null_count or pc.any(pc.equal(pc.binary_length(text), 0)).as_py():
        return None
    if "positions" in fields and not _are_spans(fields["positions"], pc.utf8_length(text)):
        return None
    found: list[str] = text.to_pylist()
    return found


def _are_spans(positions: Any, lengths: Any) -> bool:
    """Says whether each position is a span [start, end) with 0 <= start < end <= length, or
    absent."""
    if not pa.types.is_struct(positions.type):
        return False
    for i in range(positions.type.num_fields):
        if positions.type.field(i).name == LAST:
            return False
        spans = pc.struct_field(positions, i)
        if pa.types.is_null(spans.type):
            continue
        if not pa.types.is_list(spans.type) and not pa.types.is_large_list(spans.type):
            return False
        if not pa.types.is_integer(spans.type.value_type):
            return False
        there = pc.is_valid(spans)
        spans, ends = spans.filter(there), lengths.filter(there)
        if (
            not pc.all(pc.equal(pc.list_value_length(spans), 2), min_count=0).as_py()
            or spans.flatten().null_count
        ):
            return False
        start, end = (pc.list_element(spans, at) for at in (0, 1))
        ok = pc.and_(
            pc.and_(pc.greater_equal(start, 0), pc.less(start, end)), pc.less_equal(end, ends)
        )
        if not pc.all(ok, min_count=0).as_py():
            return False
    return True


def _words(struct: Any, optional: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Returns the names in a struct, and whether every row has a non-empty text for each.

    Texts of names in `optional` may be absent.
    """
    fields = _fields(struct)
    if not fields:
        return (), False
    for name, column in fields.items():
        words = _strings(column)
        if not name or words is None:
            return (), False
        if name not in optional and (
            words.null_count or pc.any(pc.equal(pc.binary_length(words), 0)).as_py()
        ):
            return (), False
    return tuple(fields), True


def _column(columns: dict[str, Any], name: str) -> list[Any] | None:
    if name not in columns:
        return [None] * len(columns["base"])
    words = _strings(columns[name])
    found: list[Any] | None = None if words is None else words.to_pylist()
    return found


def _are_choices(column: Any) -> bool:
    """Says whether they are absent, or lists of non-empty texts."""
    if column is None:
        return True
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        return False
    words = _strings(column.flatten())
    return (
        words is not None
        and not words.null_count
        and not pc.any(pc.equal(pc.binary_length(words), 0)).as_py()
    )
