"""Entries survive the way to JSON and back; what is not an entry is refused, never guessed."""

import json
from dataclasses import fields, replace
from types import MappingProxyType
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.core.events import (
    Attributed,
    Continued,
    Failed,
    Fitted,
    LossCause,
    Lost,
    Measured,
    Retried,
    Screened,
)
from raysearch.core.hypothesis import canonical_json
from raysearch.errors import StoreError
from raysearch.store import journal_codec
from raysearch.store.journal_codec import (
    Cut,
    Ended,
    Follows,
    JournalEntry,
    Sealed,
    Started,
    Suggested,
    decode,
    encode,
)
from tests.store.books import failure, screened

TEXT = st.text(max_size=20)
INT = st.integers(0, 2**31 - 1)
IDS = st.lists(INT, max_size=4).map(tuple)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
SCORES = st.none() | st.dictionaries(
    TEXT, st.dictionaries(TEXT, st.lists(st.floats(-1e6, 1e6)).map(tuple))
)
SPLIT = st.sampled_from(["fit", "test", "holdout"])
ENTRIES: dict[type[JournalEntry], st.SearchStrategy[JournalEntry]] = {
    Screened: st.builds(
        Screened,
        INT,
        SPLIT,
        INT,
        IDS,
        st.tuples(IDS, IDS),
        st.dictionaries(TEXT, st.tuples(IDS)),
        INT,
        FLOAT,
        TEXT,
        TEXT,
        INT,
        SCORES,
    ),
    Attributed: st.builds(
        Attributed,
        INT,
        SPLIT,
        INT,
        IDS,
        st.dictionaries(TEXT, st.lists(st.none() | st.floats(-1e6, 1e6)).map(tuple)),
        FLOAT,
        TEXT,
        TEXT,
        INT,
    ),
    Measured: st.builds(
        Measured,
        INT,
        TEXT,
        SPLIT,
        INT,
        IDS,
        st.lists(IDS).map(tuple),
        INT,
        INT,
        FLOAT,
        TEXT,
        TEXT,
        INT,
        SCORES,
    ),
    Lost: st.builds(Lost, INT, st.sampled_from(get_args(LossCause)), TEXT, TEXT),
    Failed: st.builds(
        Failed, INT, st.none() | TEXT, st.none() | INT, TEXT, TEXT, TEXT, TEXT, TEXT, INT
    ),
    Retried: st.builds(
        Retried, st.lists(TEXT).map(tuple), st.lists(TEXT).map(tuple), st.lists(TEXT).map(tuple)
    ),
    Started: st.builds(Started, TEXT, st.dictionaries(TEXT, TEXT), INT, st.none() | TEXT),
    Follows: st.builds(Follows, st.dictionaries(TEXT, INT)),
    Cut: st.builds(Cut, TEXT, TEXT, INT),
    Ended: st.builds(Ended, TEXT),
    Fitted: st.builds(
        *(Fitted, INT, TEXT, INT, INT, INT, IDS, st.lists(FLOAT).map(tuple)),
        *(st.lists(st.none() | FLOAT).map(tuple), st.none() | FLOAT, st.none() | FLOAT, INT),
        *(st.dictionaries(TEXT, FLOAT), TEXT, st.none() | TEXT, st.booleans(), FLOAT, TEXT, TEXT),
    ),
    Continued: st.builds(Continued, INT, st.lists(TEXT).map(tuple)),
    Sealed: st.builds(Sealed, TEXT, TEXT),
    Suggested: st.builds(Suggested, TEXT, st.none() | INT, st.lists(TEXT).map(tuple), INT),
}
"""Entries of each type; of what is kept beside the journal they have nothing."""


@pytest.mark.parametrize("cls", journal_codec._TYPES.values())
@given(st.data())
def test_every_entry_comes_back_equal_from_its_json(
    cls: type[JournalEntry], data: st.DataObject
) -> None:
    entry = data.draw(ENTRIES[cls])
    assert decode(json.loads(canonical_json(encode(entry)))) == entry


def test_where_a_lease_ended_is_of_the_living_search_and_where_a_fit_did_is_journalled() -> None:
    measured = {f.name for f in fields(Measured)}
    assert measured - set(journal_codec._FIELDS[Measured]) == {"stopped"}
    assert {f.name for f in fields(Fitted)} - set(journal_codec._FIELDS[Fitted]) == {"tensors"}


def test_where_there_are_no_scores_the_journal_has_no_word_of_them() -> None:
    assert "scores" not in encode(screened())
    assert "scores" in encode(replace(screened(), scores={}))


def test_a_mapping_of_any_kind_can_be_written() -> None:
    entry = Started("now", MappingProxyType({"torch": "2"}), 1)
    assert decode(json.loads(canonical_json(encode(entry)))) == Started("now", {"torch": "2"}, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "surprise"}, "'surprise'"),
        ({"type": None}, "None"),
        ({"type": ["lost"]}, "lost"),
        ({"block": "one"}, "block"),
        ({"block": True}, "block"),
        ({"near_ties": 1.5}, "near_ties"),
        ({"split": "all"}, "'fit', 'test' or 'holdout'"),
        ({"base": [[1], 2]}, "base"),
        ({"sources": []}, "sources"),
        ({"more": 1}, "more: unknown key; did you mean"),
    ],
)
def test_what_is_no_entry_of_this_version_is_refused_by_name(
    change: dict[str, object], words: str
) -> None:
    raw = json.loads(canonical_json(encode(screened())))
    with pytest.raises(StoreError, match="journal entry") as e:
        decode({**raw, **change})
    assert words in str(e.value)


def test_a_missing_field_is_refused_by_name() -> None:
    raw = json.loads(canonical_json(encode(failure(None))))
    del raw["worker"]
    with pytest.raises(StoreError, match="worker: missing"):
        decode(raw)


def test_text_that_no_file_can_hold_is_refused_in_one_line() -> None:
    raw = json.loads(canonical_json(encode(failure(None))))
    with pytest.raises(StoreError, match="surrogates not allowed"):
        decode({**raw, "message": "\ud800"})
