"""Files of pairs as other programs write them: packed, in parts, by pandas, by datasets, with marks
and index columns."""

import bz2
import codecs
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from raysearch import Pair
from raysearch.causal import Split
from raysearch.errors import PairsError
from raysearch.problems import place_of, read_pairs, read_sample
from raysearch.problems.pair_files import tensor_names

COUNTS: dict[Split, int] = {"test": 3, "holdout": 1}
NAMES = ("Spain", "Italy", "Norway", "Perú", "日本", "Chile")


def _line(n: int, **changes: Any) -> dict[str, Any]:
    base, source = NAMES[n % 6], NAMES[(n + 1) % 6]
    texts = [f"No. {n}: the capital of {name} is" for name in (base, source)]
    spans = [
        [text.index(name), text.index(name) + len(name)]
        for text, name in zip(texts, (base, source), strict=True)
    ]
    return {
        "base": {"text": texts[0], "positions": {"country": spans[0]}},
        "source": {"text": texts[1], "positions": {"country": spans[1]}},
        "answers": {"base": " Madrid", "source": " Rome"},
        "counterfactual": {"country": " Rome"},
        "split": ("test", "holdout")[n % 4 == 3],
        "set": f"kind {n % 2}",
        **changes,
    }


LINES = [_line(n) for n in range(12)]
TEXT = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in LINES)


@pytest.fixture
def expected(tmp_path: Path) -> tuple[Pair, ...]:
    """What the same lines are in plain JSON lines."""
    (tmp_path / "plain.jsonl").write_text(TEXT)
    return read_pairs(tmp_path / "plain.jsonl", COUNTS, 0)


def _table(lines: list[dict[str, Any]] = LINES) -> pa.Table:
    return pa.Table.from_pylist(lines)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mark.jsonl", codecs.BOM_UTF8 + TEXT.encode()),
        ("windows.jsonl", codecs.BOM_UTF8 + TEXT.replace("\n", "\r\n").encode()),
        ("powershell.jsonl", TEXT.encode("utf-16")),
        ("blank.jsonl", ("\n\n" + TEXT + "\n  \n\r\n").encode()),
        ("two marks.jsonl", TEXT.encode().replace(b"\n", b"\n" + codecs.BOM_UTF8, 1)),
        ("escaped.jsonl", "\n".join(map(json.dumps, LINES)).encode()),
        ("X.JSONL", TEXT.encode()),
        ("pairs.ndjson", TEXT.encode()),
        ("no suffix", TEXT.encode()),
        ("pairs.jsonl.gz", gzip.compress(TEXT.encode())),
        (
            "two members.jsonl.gz",
            gzip.compress(TEXT[:1000].encode()) + gzip.compress(TEXT[1000:].encode()),
        ),
        ("packed, and not said.jsonl", gzip.compress(TEXT.encode())),
        ("pairs.jsonl.bz2", bz2.compress(TEXT.encode())),
        ("pairs.jsonl.xz", lzma.compress(TEXT.encode())),
        ("pairs.jsonl.zst", pa.compress(TEXT.encode(), codec="zstd", asbytes=True)),
        ("pairs.json", json.dumps(LINES).encode()),
        (
            "indented.json",
            codecs.BOM_UTF8 + json.dumps(LINES, indent=2, ensure_ascii=False).encode(),
        ),
        ("array.json.gz", gzip.compress(json.dumps(LINES).encode())),
    ],
)
def test_text_is_read_however_it_is_written(
    tmp_path: Path, expected: tuple[Pair, ...], name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_pairs(tmp_path / name, COUNTS, 0) == expected


def _sampled(path: Path) -> None:
    frame = pd.concat([pd.DataFrame(LINES), pd.DataFrame([_line(99)])])
    frame = frame[frame["base"].map(lambda side: "No. 99" not in side["text"])].sample(
        frac=1, random_state=1
    )
    frame.sort_values("split", ascending=False).sort_index().to_parquet(path)


def _named_index(path: Path) -> None:
    pd.DataFrame(LINES).assign(question=range(12)).set_index("question").to_parquet(path)


def _set_as_index(path: Path) -> None:
    pd.DataFrame(LINES).set_index("set").to_parquet(path)


def _categories(path: Path) -> None:
    pd.DataFrame(LINES).astype({"split": "category", "set": "category"}).to_parquet(path)


def _large_strings(path: Path) -> None:
    table = _table()
    for name in ("split", "set"):
        table = table.set_column(
            table.column_names.index(name), name, table[name].cast(pa.large_string())
        )
    pq.write_table(table, path)


def _structs(path: Path) -> None:
    lines = json.loads(json.dumps(LINES))
    for side in (line[side] for line in lines for side in ("base", "source")):
        side["positions"] = [
            {"name": name, "start": a, "end": b} for name, (a, b) in side["positions"].items()
        ]
    pq.write_table(_table(lines), path)


def _columns_of_positions(path: Path) -> None:
    """As `datasets` keeps a Sequence of features."""
    lines = json.loads(json.dumps(LINES))
    for side in (line[side] for line in lines for side in ("base", "source")):
        names, spans = list(side["positions"]), list(side["positions"].values())
        side["positions"] = {
            "name": names,
            "start": [a for a, _ in spans],
            "end": [b for _, b in spans],
        }
    pq.write_table(_table(lines), path)


def _maps(path: Path) -> None:
    at = pa.map_(pa.string(), pa.list_(pa.int32()))
    side = pa.struct([("text", pa.string()), ("positions", at)])
    words = pa.map_(pa.string(), pa.string())
    schema = pa.schema(
        [
            ("base", side),
            ("source", side),
            ("answers", words),
            ("counterfactual", words),
            *[(n, pa.string()) for n in ("split", "set")],
        ]
    )
    lines = json.loads(json.dumps(LINES))
    for line in lines:
        for name in ("base", "source"):
            line[name]["positions"] = list(line[name]["positions"].items())
        for name in ("answers", "counterfactual"):
            line[name] = list(line[name].items())
    pq.write_table(pa.Table.from_pylist(lines, schema=schema), path)


def _absent_is_null(path: Path) -> None:
    lines = [{**line, "choices": None, "sources": None} for line in LINES]
    lines[0]["base"] = {
        **lines[0]["base"],
        "positions": {**lines[0]["base"]["positions"], "else": None},
    }
    side = pa.struct(
        [
            ("text", pa.string()),
            (
                "positions",
                pa.struct([("country", pa.list_(pa.int64())), ("else", pa.list_(pa.int64()))]),
            ),
        ]
    )
    schema = (
        _table()
        .schema.set(0, pa.field("base", side))
        .append(pa.field("choices", pa.list_(pa.string())))
    )
    pq.write_table(pa.Table.from_pylist(lines, schema=schema), path)


def _arrow_file(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, _table().schema) as writer:
        writer.write_table(_table(), max_chunksize=5)


def _feather(path: Path) -> None:
    pyarrow.feather.write_feather(_table(), str(path))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("sampled.parquet", _sampled),
        ("named.parquet", _named_index),
        ("set.parquet", _set_as_index),
        ("P.PARQUET", lambda path: pq.write_table(_table(), path)),
        ("no suffix", lambda path: pq.write_table(_table(), path)),
        ("categories.parquet", _categories),
        ("large.parquet", _large_strings),
        ("structs.parquet", _structs),
        ("columns.parquet", _columns_of_positions),
        ("maps.parquet", _maps),
        ("nulls.parquet", _absent_is_null),
        ("pairs.arrow", _arrow_file),
        ("pairs.feather", _feather),
    ],
)
def test_tables_are_read_however_they_are_written(
    tmp_path: Path, expected: tuple[Pair, ...], name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    assert read_pairs(tmp_path / name, COUNTS, 0) == expected


def test_positions_as_a_list_of_structs_may_stand_in_json_too(
    tmp_path: Path, expected: tuple[Pair, ...]
) -> None:
    lines = json.loads(json.dumps(LINES))
    for side in (line[side] for line in lines for side in ("base", "source")):
        side["positions"] = [
            {"name": n, "start": a, "end": b, "tokens": None}
            for n, (a, b) in side["positions"].items()
        ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_pairs(tmp_path / "p.jsonl", COUNTS, 0) == expected


def test_a_position_in_a_list_may_give_its_span_as_one_field(
    tmp_path: Path, expected: tuple[Pair, ...]
) -> None:
    lines = json.loads(json.dumps(LINES))
    for side in (line[side] for line in lines for side in ("base", "source")):
        side["positions"] = [{"name": n, "span": span} for n, span in side["positions"].items()]
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "p.parquet")
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_pairs(tmp_path / "p.parquet", COUNTS, 0) == expected
    assert read_pairs(tmp_path / "p.jsonl", COUNTS, 0) == expected


@pytest.mark.parametrize(
    "at", [{"position": "country", "start": 0, "end": 1}, {"name": 3, "span": [0, 1]}, "country"]
)
def test_a_list_of_something_else_than_positions_is_told_what_a_list_is_of(
    tmp_path: Path, at: object
) -> None:
    line = json.loads(json.dumps(LINES[0]))
    line["base"]["positions"] = [at]
    (tmp_path / "p.jsonl").write_text(json.dumps(line))
    with pytest.raises(
        PairsError, match=r"line 1: .*positions: a list is of \{name, start, end\}, \{name, span: "
    ):
        read_pairs(tmp_path / "p.jsonl", COUNTS, 0)


@pytest.mark.parametrize("more", [{"span": [0, 1]}, {"tokens": [0]}])
def test_a_position_in_a_list_says_in_one_way_where_it_is(
    tmp_path: Path, more: dict[str, list[int]]
) -> None:
    line = json.loads(json.dumps(LINES[0]))
    line["base"]["positions"] = [{"name": "country", "start": 0, "end": 3, **more}]
    (tmp_path / "p.jsonl").write_text(json.dumps(line))
    with pytest.raises(
        PairsError, match=r"positions.country: says in several ways where it is .*; keep one"
    ):
        read_pairs(tmp_path / "p.jsonl", COUNTS, 0)


def test_a_folder_of_parts_is_one_file_and_what_is_hidden_is_none(
    tmp_path: Path, expected: tuple[Pair, ...]
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(_table(LINES[:5]), folder / "part-00000.snappy.parquet")
    pq.write_table(_table(LINES[5:]), folder / "part-00001.snappy.parquet")
    for name in (
        "_SUCCESS",
        ".part-00000.crc",
        "._part-00000.parquet",
        "_metadata",
        "README.md",
        ".hidden.parquet",
    ):
        (folder / name).write_bytes(b"x")
    assert read_pairs(folder, COUNTS, 0) == expected


def test_names_of_folders_give_the_split(tmp_path: Path, expected: tuple[Pair, ...]) -> None:
    lines = sorted(LINES, key=lambda line: line["split"])
    pq.write_to_dataset(_table(lines), tmp_path / "hive", partition_cols=["split"])
    found = read_pairs(tmp_path / "hive", COUNTS, 0)
    assert sorted((p.base.text, p.split) for p in found) == sorted(
        (p.base.text, p.split) for p in expected
    )


def _saved(folder: Path, lines: list[dict[str, Any]], shards: int = 2) -> None:
    """As `datasets.save_to_disk` (5.2) writes it: Arrow streams, and what lists them."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    for i, name in enumerate(names):
        part = _table(lines[i * len(lines) // shards : (i + 1) * len(lines) // shards])
        with (
            pa.OSFile(str(folder / name), "wb") as file,
            pa.ipc.new_stream(file, part.schema) as writer,
        ):
            writer.write_table(part)
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0" * 16,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))


def test_a_saved_dataset_is_read_in_the_order_of_its_rows(
    tmp_path: Path, expected: tuple[Pair, ...]
) -> None:
    _saved(tmp_path / "saved", LINES, 3)
    assert read_pairs(tmp_path / "saved", COUNTS, 0) == expected


def test_the_splits_of_a_saved_dataset_are_ours_by_their_names(tmp_path: Path) -> None:
    bare = [{k: v for k, v in line.items() if k != "split"} for line in LINES]
    for name, lines in {"train": bare[:4], "test": bare[4:9], "validation": bare[9:]}.items():
        _saved(tmp_path / "saved" / name, lines)
    (tmp_path / "saved/dataset_dict.json").write_text(
        json.dumps({"splits": ["train", "test", "validation"]})
    )
    found = read_pairs(tmp_path / "saved", COUNTS, 0)
    ours = {f"No. {n}:": "fit" if n < 4 else "test" if n < 9 else "holdout" for n in range(12)}
    assert {p.base.text.partition(" the")[0]: p.split for p in found} == ours
    (tmp_path / "saved/dataset_dict.json").write_text(json.dumps({"splits": ["train", "extra"]}))
    with pytest.raises(
        PairsError,
        match=r"has the splits train, extra, of which extra is none of fit, train, test.*rename it",
    ):
        read_pairs(tmp_path / "saved", COUNTS, 0)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("pairs.csv", b"base,source\n", "fields within fields, which CSV cannot say"),
        ("pairs.xlsx", b"PK\x03\x04rest", "holds a zip archive or a spreadsheet and no pairs"),
        ("pairs.pkl", b"\x80\x04x", "a Python pickle, which is never opened"),
        ("cut.jsonl.gz", gzip.compress(TEXT.encode())[:-30], "packed data that cannot be unpacked"),
        ("cut.parquet", b"PAR1 and nothing", "cannot be read as Parquet"),
        ("text.parquet", TEXT.encode(), "cannot be read as Parquet: it does not begin with PAR1"),
        ("columns.json", pd.DataFrame(LINES).to_json().encode(), 'line 1: is a table written '
                                                                 'column by column.*orient="records"'),
        ("cut.json", json.dumps(LINES)[:-9].encode(), "holds no JSON array"),
        ("more.json", json.dumps(LINES).encode() + b" 3", "holds no JSON array: Extra data"),
        ("null.jsonl", b"null\n" + TEXT.encode(), "line 1: is NoneType; a pair is an object"),
    ],
)  # fmt: skip
def test_what_holds_no_pairs_is_said(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PairsError, match=says) as refused:
        read_pairs(tmp_path / name, COUNTS, 0)
    assert str(refused.value).startswith(str(tmp_path / name))
    assert "\n" not in str(refused.value)


def test_folders_of_something_else_are_said(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match="is a folder without a file of pairs"):
        read_pairs(tmp_path, COUNTS, 0)
    pq.write_table(_table(), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text(TEXT)
    with pytest.raises(PairsError, match=r"files of several kinds \(JSON lines, Parquet\)"):
        read_pairs(tmp_path, COUNTS, 0)
    _saved(tmp_path / "saved", LINES)
    (tmp_path / "saved/data-00001-of-00002.arrow").unlink()
    with pytest.raises(
        PairsError, match=r"lacks data-00001-of-00002\.arrow, which its state\.json names"
    ):
        read_pairs(tmp_path / "saved", COUNTS, 0)


@pytest.mark.parametrize("bad", [0, 4_097, 9_000])
def test_a_mistake_far_down_is_told_with_its_line(tmp_path: Path, bad: int) -> None:
    lines = [json.dumps(_line(n)) for n in range(9_001)]
    lines[bad] = lines[bad].replace('"country": [', '"country": [-')
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n\n" + "\n".join(lines))
    with pytest.raises(PairsError, match=rf"pairs\.jsonl: line {bad + 3}: position 'country': \[-"):
        read_pairs(path, COUNTS, 0)


def test_of_a_large_file_no_more_is_kept_than_is_asked_for_and_the_rest_is_counted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "\n".join(json.dumps(_line(n, split="test", set=f"kind {n % 2}")) for n in range(3_000))
    )
    drawn = read_sample(path, {"test": 100, "holdout": 10}, 0)
    assert len(drawn.pairs) == 1_600
    assert sum(left.pairs for left in drawn.left_out) == 1_400
    assert {(left.reason, left.split, left.set) for left in drawn.left_out} == {
        ("beyond", "test", f"kind {i}") for i in (0, 1)
    }
    pair = drawn.pairs[77]
    number = int(place_of(path, pair.index, 0).rpartition(" ")[2])
    assert pair.base.text.startswith(f"No. {number - 1}:")
    everything = read_sample(path, {"test": 3_000}, 0).pairs
    assert drawn.pairs == everything[: len(drawn.pairs)]


def test_line_by_line_and_by_columns_a_file_means_the_same(tmp_path: Path) -> None:
    """An escaped half of a character, in pairs, keeps a block from being read by columns."""
    parrot = [_line(n, set="\N{PARROT}") for n in range(30)]
    columns, rows = tmp_path / "columns.jsonl", tmp_path / "rows.jsonl"
    columns.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in parrot))
    rows.write_text("\n".join(json.dumps(line) for line in parrot))
    assert read_pairs(columns, COUNTS, 0) == read_pairs(rows, COUNTS, 0)


def test_a_source_may_ask_nothing_and_then_has_no_answer(tmp_path: Path) -> None:
    lines = [
        _line(0, answers={"base": " Madrid"}),
        _line(1, answers={"base": " Madrid", "source": ""}),
        _line(2),
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = {
        p.base.text.partition(":")[0]: dict(p.answers)
        for p in read_pairs(tmp_path / "p.jsonl", COUNTS, 0)
    }
    assert found["No. 0"] == found["No. 1"] == {"base": " Madrid"}
    assert found["No. 2"] == {"base": " Madrid", "source": " Rome"}


def test_several_right_answers_are_refused_with_what_would_do(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(
        json.dumps(_line(0, answers={"base": [" a", " b"], "source": " c"}))
    )
    with pytest.raises(
        PairsError,
        match=r"line 1: answers.base: is a list; a pair has one right answer.*answer\.aliases",
    ):
        read_pairs(tmp_path / "p.jsonl", COUNTS, 0)


def test_tensors_are_found_in_a_folder_of_parts(tmp_path: Path) -> None:
    side = {"tensor": "a.safetensors#x"}
    lines = [{**_line(0), "base": side, "source": side}]
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/0.jsonl").write_text(json.dumps(lines[0]))
    assert tensor_names(tmp_path / "parts") == ("a.safetensors",)
