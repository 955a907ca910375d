"""pairs.parquet: what is read back is what was drawn, encoded and screened; and any script can read it."""

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.causal import Input, Pair
from raysearch.errors import StoreError
from raysearch.search.events import Encoded, PairScreened
from raysearch.store.pairs_table import KeptPairs, pairs_digest, read_pairs, write_pairs
from tests.store.books import ENCODED, PAIRS

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
IDS = st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple)
NAMES = st.text("abcxyz", min_size=1, max_size=3)


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    text = draw(WORDS)
    start = draw(st.integers(0, len(text) - 1))
    return Input(text, dict.fromkeys(draw(st.lists(NAMES, max_size=3)), (start, len(text))))


@st.composite
def kept(draw: st.DrawFn) -> KeptPairs:
    pairs, encoded, screened = [], [], []
    for index in range(draw(st.integers(0, 4))):
        sources = draw(st.dictionaries(NAMES, inputs(), min_size=1, max_size=2))
        base, variables = draw(inputs()), draw(st.lists(NAMES, unique=True, max_size=3))
        split = draw(st.sampled_from(["fit", "test", "holdout"]))
        answers = {name: draw(WORDS) for name in ("base", *sources)}
        pairs.append(
            Pair(index, base, sources, answers, {v: draw(WORDS) for v in variables}, split, draw(st.none() | WORDS))
        )
        encoded.append(
            Encoded(
                index=index,
                base=draw(IDS),
                sources={s: draw(IDS) for s in sources},
                base_positions={p: draw(IDS) for p in (*base.spans, "last")},
                source_positions={s: {p: draw(IDS) for p in (*i.spans, "last")} for s, i in sources.items()},
                answers={name: draw(IDS) for name in answers},
                counterfactual={v: draw(IDS) for v in variables},
            )
        )
        outputs = draw(st.none() | st.just({s: draw(IDS) for s in sources}))
        solved, block = draw(st.none() | st.booleans()), draw(st.none() | st.integers(0, 9))
        screened.append(PairScreened(index, draw(st.none() | IDS), outputs, solved, split, block))
    return KeptPairs(
        tuple(pairs),
        tuple(encoded) if draw(st.booleans()) else None,
        tuple(screened) if draw(st.booleans()) else None,
    )


@given(kept())
def test_pairs_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, what: KeptPairs) -> None:
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    write_pairs(path, what.pairs, what.encoded, what.screened)
    assert read_pairs(path) == what


def test_the_setting_behind_an_input_is_not_kept(tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.parquet", PAIRS)
    assert PAIRS[0].base.values
    assert read_pairs(tmp_path / "p.parquet").pairs[0].base.values == {}


def test_an_outside_script_finds_its_way(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, PAIRS, ENCODED)
    schema = pq.read_schema(path)
    assert schema.metadata[b"schema_version"] == b"1"
    assert all(f.metadata[b"meaning"] for f in schema)
    query = f"""SELECT list_filter(counterfactual, lambda c: c.variable = 'country')[1].ids AS ids, sources[1].name AS s,
                list_filter(base_positions, lambda p: p.name = 'last')[1].tokens AS last, solved, block
                FROM '{path}' WHERE "index" = 2"""
    assert duckdb.sql(query).fetchall() == [([10], "source", [2], None, None)]


def test_a_missing_or_broken_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is missing"):
        read_pairs(tmp_path / "pairs.parquet")
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="cannot be read as pairs"):
        read_pairs(tmp_path / "pairs.parquet")


def test_the_digest_names_the_content(tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.parquet", PAIRS)
    assert pairs_digest(PAIRS) == pairs_digest(read_pairs(tmp_path / "p.parquet").pairs)
    assert pairs_digest(PAIRS) != pairs_digest(PAIRS[:-1])
