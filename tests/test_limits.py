"""Files that never end, or grow when they are read, are refused in one line; docs list each limit."""

import contextlib
import gzip
import json
import os
import re
import shutil
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from raysearch import limits
from raysearch.core.model_source import ModelSource
from raysearch.core.prompt_format import PromptFormat
from raysearch.engine.encoding import chat_template
from raysearch.engine.encoding.tokenized_texts import TokenizedTexts
from raysearch.engine.loading.inspect_model import inspect_model
from raysearch.errors import JobError, ModelError, PairsError
from raysearch.job import Job
from raysearch.problems import pair_rows
from raysearch.problems.pair_parts import PairsPart
from raysearch.report import results_table
from tests.cli.conftest import QUICKSTART
from tests.once import Once

MODEL = QUICKSTART.parent / "planted" / "model"
DOCS = Path(__file__).parents[1] / "docs" / "reference" / "limits.md"


def test_the_docs_list_each_limit_with_its_value() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", DOCS.read_text(), re.M))
    assert {name: float(value.replace(",", "")) for name, value in listed.items()} == {
        name: value for name, value in vars(limits).items() if name.isupper()
    }


def test_a_job_file_without_an_end_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"# " + b"x" * limits.JOB_BYTES)
    for path, says in ((Path("/dev/zero"), "has no end"), (large, "has 10,000,002 bytes")):
        with pytest.raises(JobError, match=f"{path}: {says}, and at most 10,000,000"):
            Job.load(path)


def test_a_job_may_come_by_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "job.yaml")
    writer = threading.Thread(target=lambda: pipe.write_text("a: 1\r\nb: 2\r\n"))
    writer.start()
    with pytest.raises(JobError, match="a: "):
        Job.load(pipe)
    writer.join()


LOOP = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LOOP + "{{ messages[0]['content'] }}", r"takes more than 1 s"),
        ("{{ messages[0]['content'] }}{{ 'a' * 3000000000 }}", "takes more than 1 GiB of memory"),
        ("{{ messages[0]['content'] }}{{ 'a' * 2000000 }}", "a prompt of 2,000,0"),
        ("{{ messages[0]['content'] }}{{ 2 ** 99999999999 }}", "takes more than 1 "),
    ],
)
def test_a_chat_template_that_does_not_end_is_refused(
    text: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_template, "TEMPLATE_SECONDS", 1.0)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tokenizer.chat_template = text
    with pytest.raises(ModelError, match=rf"chat template cannot be used \(Endless.*{says}") as e:
        TokenizedTexts(tokenizer, PromptFormat(chat_template=True))
    assert "\n" not in str(e.value)


def test_a_template_is_refused_too_that_grows_with_the_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokens = TokenizedTexts(tokenizer, PromptFormat(chat_template=True))
    assert tokens.prompt("1+2").text == "1+2"
    with pytest.raises(ModelError, match="a prompt of 1,000,001 characters"):
        tokens.prompt("x" * 1_000_001)


@pytest.mark.parametrize(
    "column",
    [["x" * 10**6] * 500, pytest.param([["y" * 10**5] * 10] * 500, marks=pytest.mark.slow)],
)
def test_a_parquet_that_grows_beyond_all_bounds_is_refused(tmp_path: Path, column: list) -> None:  # type: ignore[type-arg]
    path, rows = tmp_path / "pairs.parquet", len(column)
    schema = pa.schema([("base", pa.array(column[:1]).type)])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for at in range(0, rows, 100):
            writer.write_table(pa.table({"base": pa.array(column[at : at + 100])}, schema))
    assert path.stat().st_size < 3 * 10**6
    with pytest.raises(PairsError, match=r"takes .* MiB in memory or more, and .* at most 256 MiB"):
        list(pair_rows._parquet(path))


def _arrow_file(path: Path, codec: str, dictionary: bool) -> None:
    column = pa.array(["x" * 10**6] * 100)
    table = pa.table({"base": column.dictionary_encode() if dictionary else column})
    if dictionary:  # one large value, which the indices name
        large = pa.array(["x" * 300 * 10**6])
        table = pa.table({"base": pa.DictionaryArray.from_arrays(pa.array([0, 0]), large)})
    options = pa.ipc.IpcWriteOptions(compression=codec)
    make = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with make(path, table.schema, options=options) as writer:
        for _ in range(1 if dictionary else 3):
            writer.write_table(table)


@pytest.mark.parametrize("name", ["pairs.arrow", "pairs.arrows"])
@pytest.mark.parametrize(("codec", "dictionary"), [("zstd", False), ("lz4", True)])
def test_an_arrow_file_that_grows_is_refused_before_it_is_unpacked(
    tmp_path: Path, name: str, codec: str, dictionary: bool
) -> None:
    _arrow_file(path := tmp_path / name, codec, dictionary)
    assert path.stat().st_size < 3 * 10**6
    before = pa.total_allocated_bytes()
    with pytest.raises(PairsError, match=r"takes .* MiB in memory or more, and .* at most 256 MiB"):
        list(pair_rows._arrow(path))
    assert pa.total_allocated_bytes() - before < 10**6


def test_an_arrow_file_of_like_rows_is_read(tmp_path: Path) -> None:
    for name, codec in (("a.arrow", "zstd"), ("b.arrows", "lz4"), ("c.arrow", None)):
        table = pa.table({"base": ["a sentence of some words"] * 200_000})
        make = pa.ipc.new_stream if name == "b.arrows" else pa.ipc.new_file
        with make(
            tmp_path / name, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)
        ) as w:
            w.write_table(table)
        assert sum(map(len, pair_rows._arrow(tmp_path / name))) == 200_000


@pytest.mark.parametrize("at", range(8, 700, 37))
def test_a_damaged_arrow_file_is_read_or_refused_and_nothing_else(tmp_path: Path, at: int) -> None:
    table = pa.table({"base": ["1+2+3="] * 50, "source": ["4+5+6="] * 50})
    path = tmp_path / "pairs.arrow"
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        writer.write_table(table)
    content = bytearray(path.read_bytes())
    content[at : at + 4] = b"\xff\xfe\xfd\x7f"
    path.write_bytes(content)
    with contextlib.suppress(PairsError):
        for batch in pair_rows.read_batches(PairsPart(path)):
            batch.table()


@pytest.mark.parametrize("blank", [b" ", b"x"])
def test_a_packed_text_that_grows_beyond_all_bounds_is_refused(
    tmp_path: Path, blank: bytes
) -> None:
    path = tmp_path / "pairs.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(30):
            file.write(blank * 10**7)
    with pytest.raises(PairsError, match=r"takes .* MiB in memory or more, and .* at most 256 MiB"):
        list(pair_rows.read_batches(PairsPart(path)))


def test_many_like_rows_are_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"base": ["a sentence of some words"] * 200_000}), path)
    assert sum(map(len, pair_rows._parquet(path))) == 200_000


@pytest.mark.parametrize(
    ("counts", "most"),
    [
        ({"num_hidden_layers": 10**9}, "10,000"), ({"num_attention_heads": 10**9}, "10,000"),
        ({"num_local_experts": 10**6}, "10,000"), ({"n_layer": 1e12}, "10,000"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "10,000"),
        ({"num_labels": 10**9}, "1,000,000"),
    ],
)  # fmt: skip
def test_a_configuration_of_a_billion_layers_or_labels_is_refused_at_once(
    tmp_path: Path, counts: dict[str, object], most: str
) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | counts))
    with pytest.raises(ModelError, match=rf"of its config\.json is .*at most {most} are read"):
        inspect_model(ModelSource(str(tmp_path / "model")))


def test_a_condition_that_does_not_end_is_ended(
    once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = once.searched(
        QUICKSTART, "--set", "space.variables=[sum_ab,total]", "--set", "pairs.test=128"
    )
    monkeypatch.setattr(results_table, "QUERY_SECONDS", 1.0)
    for where in (
        "(SELECT count(*) FROM range(100000000000)) > 0",
        "layer IN (SELECT a.range FROM range(1000000) a, range(1000000) b)",
    ):
        with pytest.raises(JobError, match="takes more than 1 s or 1 GiB of memory; give"):
            results_table.results(run, where=where)
