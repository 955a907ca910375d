"""The schema of pairs.parquet: the pairs of a run, each with its inputs and answers."""

import pyarrow as pa

from raysearch.store.schemas import IDS, table_schema

_POSITIONS = pa.list_(
    pa.struct(
        [
            ("name", pa.string()),
            ("start", pa.int32()),
            ("end", pa.int32()),
            ("tokens", pa.list_(pa.int32())),
            ("indices", pa.list_(pa.int32())),
        ]
    )
)
_TENSOR = pa.struct(
    [
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int32())),
        ("data", pa.binary()),
        (
            "positions",
            pa.list_(pa.struct([("name", pa.string()), ("tokens", pa.list_(pa.int32()))])),
        ),
    ]
)
_SOURCES = pa.list_(
    pa.struct(
        [
            ("name", pa.string()),
            ("text", pa.string()),
            ("ids", IDS),
            ("positions", _POSITIONS),
            ("answer", pa.string()),
            ("answer_ids", IDS),
            ("output", IDS),
            ("tensor", _TENSOR),
        ]
    )
)
_COUNTERFACTUAL = pa.list_(
    pa.struct([("variable", pa.string()), ("answer", pa.string()), ("ids", IDS)])
)
_ALIASES = pa.list_(pa.struct([("said", IDS), ("answer", IDS)]))


PAIRS = table_schema(
    "pairs",
    ("index", pa.int32(), "the pair's number, by which observations name it", "index"),
    ("split", pa.string(), "fit, test or holdout", "name"),
    ("set", pa.string(), "kind of the pair; null where kinds are not told apart", "name"),
    ("base_text", pa.string(), "the input that is run; null where it is a tensor", "text"),
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
    ("base_answer", pa.string(), "right answer without intervention", "text"),
    ("base_answer_ids", IDS, "its compared ids", "token or class id"),
    (
        "sources",
        _SOURCES,
        "the inputs that lend activations; output: the model's own answer",
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
        pa.list_(pa.string()),
        "answers among which the model chooses; null: among all",
        "text",
    ),
    ("choice_ids", IDS, "their compared ids", "token id"),
    ("base_output", IDS, "the model's own answer; null before screening", "token or class id"),
    ("solved", pa.bool_(), "base and sources answered rightly; null before screening", "truth"),
    ("block", pa.int32(), "block within the split; null: not used", "index"),
)
