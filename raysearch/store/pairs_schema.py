"""The schema of pairs.parquet: the pairs of a run, each with its inputs and answers."""

import pyarrow as pa

from raysearch.store.table_schema import IDS, INT, TEXT, table_schema

_POSITIONS = pa.list_(
    pa.struct({"name": TEXT, "start": INT, "end": INT, "tokens": IDS, "indices": IDS})
)
_TENSOR = pa.struct(
    {
        "dtype": TEXT,
        "shape": IDS,
        "data": pa.binary(),
        "positions": pa.list_(pa.struct({"name": TEXT, "tokens": IDS})),
    }
)
_SOURCES = pa.list_(
    pa.struct(
        {
            "name": TEXT,
            "text": TEXT,
            "ids": IDS,
            "positions": _POSITIONS,
            "answer": TEXT,
            "answer_ids": IDS,
            "output": IDS,
            "tensor": _TENSOR,
        }
    )
)
_COUNTERFACTUAL = pa.list_(pa.struct({"variable": TEXT, "answer": TEXT, "ids": IDS}))
_VALUES = pa.list_(pa.struct({"variable": TEXT, "input": TEXT, "value": pa.int64()}))
_ALIASES = pa.list_(pa.struct({"said": IDS, "answer": IDS}))

PAIRS = table_schema(
    "pairs",
    ("index", INT, "the pair's number, by which observations name it", "index"),
    ("split", TEXT, "fit, test or holdout", "name"),
    ("set", TEXT, "kind of the pair; null where kinds are not told apart", "name"),
    ("base_text", TEXT, "the input that is run; null where it is a tensor", "text"),
    (
        "base_tensor",
        _TENSOR,
        "the input that is run: float32 or int64 numbers, row-major, little-endian, and its named "
        "tokens; null where it is text",
        "struct",
    ),
    ("base_ids", IDS, "its tokens, as the model sees them; null where it is a tensor", "token id"),
    (
        "base_positions",
        _POSITIONS,
        "named positions: span [start, end) or indices (special tokens not counted) as given; "
        "token indices",
        "character; token index",
    ),
    ("base_answer", TEXT, "right answer without intervention", "text"),
    ("base_answer_ids", IDS, "its compared ids", "token or class id"),
    (
        "sources",
        _SOURCES,
        "the inputs that activations are taken from; output: the model's own answer",
        "struct",
    ),
    (
        "counterfactual",
        _COUNTERFACTUAL,
        "per variable, the answer expected under its interchange",
        "struct",
    ),
    (
        "aliases",
        _ALIASES,
        "what is said, and the answer of this pair that it counts as",
        "token id",
    ),
    (
        "choices",
        pa.list_(TEXT),
        "answers among which the model chooses; null: among all",
        "text",
    ),
    (
        "values",
        _VALUES,
        "a number for the value that a variable has in an input (base or a source): equal numbers, "
        "equal values; null where the values are not known",
        "struct",
    ),
    (
        "matching",
        INT,
        "for a claim about new values, the matching of values that it is of; four successive ones "
        "are of one block of values; null else",
        "index",
    ),
    (
        "added",
        INT,
        "by which continuation of the run it was drawn, from 1; null: when the run began",
        "number",
    ),
    ("choice_ids", IDS, "their compared ids", "token id"),
    ("base_output", IDS, "the model's own answer; null before screening", "token or class id"),
    ("solved", pa.bool_(), "base and sources answered rightly; null before screening", "truth"),
    ("block", INT, "block within the split; null: not used", "index"),
)
