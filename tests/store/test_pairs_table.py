"""pairs.parquet: what is read back is what was drawn, encoded and screened; and any script can read
it."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch import Input, Pair
from raysearch.causal import Stimulus
from raysearch.core.events import Encoded
from raysearch.core.records import PairScreened
from raysearch.errors import StoreError
from raysearch.storage.folder import Folder
from raysearch.storage.local import LocalFolder
from raysearch.store.pairs_table import PairsTable, pairs_digest, read_pairs, write_pairs
from tests.store.books import ENCODED, PAIRS

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
IDS = st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple)
NAMES = st.text("abcxyz", min_size=1, max_size=3)


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    if draw(st.booleans()):
        numbers = draw(
            st.lists(
                st.floats(width=32, allow_nan=False) | st.integers(-9, 9), min_size=1, max_size=4
            )
        )
        names = draw(st.lists(NAMES, max_size=2, unique=True))
        return Input(stimulus=Stimulus.of([numbers]), tokens=dict.fromkeys(names, (0, 2)))
    text = draw(WORDS)
    start = draw(st.integers(0, len(text) - 1))
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    by_index = draw(st.integers(0, len(names)))
    return Input(
        text,
        dict.fromkeys(names[by_index:], (start, len(text))),
        tokens=dict.fromkeys(names[:by_index], (0, 3)),
    )


@st.composite
def kept(draw: st.DrawFn) -> PairsTable:
    pairs, encoded, screened = [], [], []
    for index in range(draw(st.integers(0, 4))):
        sources = draw(st.dictionaries(NAMES, inputs(), min_size=1, max_size=2))
        base, variables = draw(inputs()), draw(st.lists(NAMES, unique=True, max_size=3))
        split = draw(st.sampled_from(["fit", "test", "holdout"]))
        answers = {name: draw(WORDS) for name in ("base", *sources)}
        listed = tuple(draw(st.lists(WORDS, max_size=2)))
        expected = {v: draw(WORDS) for v in variables}
        pairs.append(
            Pair(index, base, sources, answers, expected, split, draw(st.none() | WORDS), listed)
        )
        encoded.append(
            Encoded(
                index=index,
                base=base.stimulus or draw(IDS),
                sources={s: i.stimulus or draw(IDS) for s, i in sources.items()},
                base_positions={p: draw(IDS) for p in (*base.positions, "last")},
                source_positions={
                    s: {p: draw(IDS) for p in (*(i.spans or i.positions), "last")}
                    for s, i in sources.items()
                },
                answers={name: draw(IDS) for name in answers},
                counterfactual={v: draw(IDS) for v in variables},
                aliases=tuple(draw(st.lists(st.tuples(IDS, IDS), max_size=2))),
                choices=draw(IDS),
            )
        )
        outputs = draw(st.none() | st.just({s: draw(IDS) for s in sources}))
        solved, block = draw(st.none() | st.booleans()), draw(st.none() | st.integers(0, 9))
        screened.append(PairScreened(index, draw(st.none() | IDS), outputs, solved, split, block))
    return PairsTable(
        tuple(pairs),
        tuple(encoded) if draw(st.booleans()) else None,
        tuple(screened) if draw(st.booleans()) else None,
    )


@given(kept())
def test_pairs_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, what: PairsTable
) -> None:
    run = LocalFolder(tmp_path_factory.mktemp("pairs"))
    write_pairs(run, what.pairs, what.encoded, what.screened)
    assert read_pairs(run) == what


def test_the_setting_behind_an_input_is_not_kept(tmp_path: Path) -> None:
    write_pairs(LocalFolder(tmp_path), PAIRS)
    assert PAIRS[0].base.values
    assert read_pairs(LocalFolder(tmp_path)).pairs[0].base.values == {}


def test_an_outside_script_finds_its_way(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(LocalFolder(tmp_path), PAIRS, ENCODED)
    schema = pq.read_schema(path)
    assert schema.metadata[b"schema_version"] == b"1"
    assert all(f.metadata[b"meaning"] for f in schema)
    query = f"""SELECT list_filter(counterfactual, lambda c: c.variable = 'country')[1].ids AS ids, sources[1].name AS s,
                list_filter(base_positions, lambda p: p.name = 'last')[1].tokens AS last, solved, block
                FROM '{path}' WHERE "index" = 2"""
    assert duckdb.sql(query).fetchall() == [([10], "source", [2], None, None)]


def test_a_missing_or_broken_file_is_one_clear_line(store: Folder) -> None:
    with pytest.raises(StoreError, match=r"pairs\.parquet.*: is missing"):
        read_pairs(store)
    store.write("pairs.parquet", b"PAR1")
    with pytest.raises(StoreError, match=r"pairs\.parquet.*: cannot be read as pairs"):
        read_pairs(store)


def test_pairs_come_back_from_any_store(store: Folder) -> None:
    write_pairs(store, PAIRS, ENCODED)
    kept = read_pairs(store)
    assert ([p.index for p in kept.pairs], kept.encoded, kept.screened) == (
        [0, 1, 2, 3],
        ENCODED,
        None,
    )


def test_the_digest_names_the_content(tmp_path: Path) -> None:
    write_pairs(LocalFolder(tmp_path), PAIRS)
    assert pairs_digest(PAIRS) == pairs_digest(read_pairs(LocalFolder(tmp_path)).pairs)
    assert pairs_digest(PAIRS) != pairs_digest(PAIRS[:-1])


def test_tensors_can_be_read_by_any_script(tmp_path: Path) -> None:
    given = Input(stimulus=Stimulus.of([[1.5, 2.0]]), tokens={"p": (0,)})
    write_pairs(
        LocalFolder(tmp_path),
        [Pair(0, given, {"source": given}, {"base": "1"}, {"v": "0"}, "test")],
    )
    (row,) = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    assert (row["base_text"], row["sources"][0]["text"]) == (None, None)
    tensor = row["base_tensor"]
    assert np.frombuffer(tensor["data"], tensor["dtype"]).reshape(tensor["shape"]).tolist() == [
        [1.5, 2.0]
    ]


def test_pairs_of_a_run_from_before_tensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(LocalFolder(tmp_path), PAIRS, ENCODED)
    table = pq.read_table(path)
    sources = [
        [{k: v for k, v in s.items() if k != "tensor"} for s in row]
        for row in table["sources"].to_pylist()
    ]
    old = table.drop_columns(["base_tensor", "sources"]).append_column("sources", pa.array(sources))
    pq.write_table(old.replace_schema_metadata(table.schema.metadata), path)
    assert read_pairs(LocalFolder(tmp_path)).encoded == ENCODED


def test_the_digest_of_tensors_names_their_numbers_and_positions() -> None:
    def digest(values: list[float], **tokens: tuple[int, ...]) -> str:
        given = Input(stimulus=Stimulus.of(values), tokens=tokens)
        return pairs_digest([Pair(0, given, {}, {}, {}, "test")])

    assert len({digest([1.0]), digest([2.0]), digest([1.0], p=(0,)), digest([1.0], p=(1,))}) == 4
