"""Files of pairs and how a job's problem is found: what is refused, and how it is said."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from raysearch.causal import Stimulus, named_sources
from raysearch.errors import JobError, PairsError
from raysearch.problems import load_problem, read_pairs

COUNTS = {"test": 3, "fit": 0, "holdout": 1}


def _line(n: int = 0, **changes: object) -> dict[str, object]:
    return {
        "base": {"text": f"The capital of Spain {n} is", "positions": {"country": [15, 20]}},
        "source": {"text": f"The capital of Italy {n} is", "positions": {"country": [15, 20]}},
        "answers": {"base": " Madrid", "source": " Rome"},
        "counterfactual": {"country": " Rome"},
        **changes,
    }


def _jsonl(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return path


def test_every_line_becomes_a_pair_and_the_seed_orders_them(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, *(_line(n, split="test", set="easy") for n in range(20)))
    pairs = read_pairs(path, COUNTS, seed=0)
    assert [p.index for p in pairs] == list(range(20))
    assert {p.base.text for p in pairs} == {f"The capital of Spain {n} is" for n in range(20)}
    assert pairs == read_pairs(path, COUNTS, seed=0)
    assert [p.base.text for p in pairs] != [p.base.text for p in read_pairs(path, COUNTS, seed=1)]
    first = pairs[0]
    assert (first.split, first.set, first.base.spans) == ("test", "easy", {"country": (15, 20)})
    assert (first.answers, first.counterfactual) == (
        {"base": " Madrid", "source": " Rome"},
        {"country": " Rome"},
    )


def test_parquet_gives_the_same_pairs(tmp_path: Path) -> None:
    lines = [_line(n, split="test") for n in range(5)]
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(lines), path)
    assert read_pairs(path, COUNTS, 0) == read_pairs(_jsonl(tmp_path, *lines), COUNTS, 0)


def test_positions_of_a_text_may_be_spans_or_token_indices(tmp_path: Path) -> None:
    base = {
        "text": "The capital of Spain is",
        "positions": {"country": [15, 20], "two": {"tokens": [0, 3]}},
    }
    (pair,) = read_pairs(_jsonl(tmp_path, _line(base=base, split="test")), COUNTS, 0)
    assert (pair.base.spans, pair.base.tokens) == ({"country": (15, 20)}, {"two": (0, 3)})


def test_a_file_without_splits_is_dealt_out_by_the_ratio_and_no_pair_goes_to_two(
    tmp_path: Path,
) -> None:
    path = _jsonl(tmp_path, *(_line(n % 200) for n in range(400)))
    pairs = read_pairs(path, COUNTS, 0)
    splits: dict[str, set[str]] = {}
    for p in pairs:
        splits.setdefault(p.base.text, set()).add(p.split)
    assert all(len(s) == 1 for s in splits.values())
    test = sum(p.split == "test" for p in pairs)
    assert 260 <= test <= 340
    assert not [p for p in pairs if p.split == "fit"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", r"line 2: is no JSON: .* at column 2"),
        ("[1]", "line 2: is list; a pair is an object"),
        ({k: v for k, v in _line().items() if k != "base"}, "line 2: base: missing"),
        ({"text": "3+5="}, r'a pair needs it, as in {"base": {"text": '),
        ({"base": "3+5=", "source": "1+5="}, r"base: should be .*, as in {\"base\": {\"text\": "),
        (_line(base={"positions": {}}), "line 2: base.text: missing"),
        (_line(bse=1), "line 2: bse: unknown field"),
        (_line(split="train"), r"line 2: split: .*\(got 'train'\)"),
        (_line(answers={"base": "", "source": "x"}), "line 2: answers.base: should not be empty"),
        (_line(counterfactual={}), "line 2: counterfactual: "),
        (
            _line(counterfactual={"relation": "x"}),
            "line 2: counterfactual: has relation; line 1 has country",
        ),
        (
            _line(base={"text": "abc", "positions": {"x": [2, 9]}}),
            r"line 2: position 'x': \[2, 9\) is no span of 'abc'",
        ),
        (_line(base={"text": "", "positions": {}}), "line 2: .*text is empty"),
        (
            _line(base={"text": "a b", "positions": {"x": {"token": [1]}}}),
            "line 2: base.positions.x.tokens: missing",
        ),
        (
            _line(base={"text": "a b", "positions": {"x": {"tokens": [-1]}}}),
            "line 2: base.positions.x.tokens.0: input sh",
        ),
        (
            _line(base={"text": "a b", "positions": {"x": {"tokens": []}}}),
            "line 2: position 'x': .* are no token indices",
        ),
        (_line(split="fit"), "line 2: split: its base and source stand in line 1 too"),
    ],
)
def test_a_line_that_is_not_of_the_form_is_refused_with_line_and_field(
    tmp_path: Path, line: object, says: str
) -> None:
    with pytest.raises(PairsError, match=says) as e:
        read_pairs(_jsonl(tmp_path, _line(), line), COUNTS, 0)
    assert str(e.value).startswith(str(tmp_path))


def _several(n: int = 0, **changes: object) -> dict[str, object]:
    line = _line(n)
    source = line.pop("source")
    several = {
        "a": source,
        "b": {"text": f"The capital of Greece {n} is", "positions": {"country": [15, 21]}},
    }
    answers = {"base": " Madrid", "a": " Rome", "b": " Athens"}
    return {
        **line,
        "sources": several,
        "answers": answers,
        "counterfactual": {"x<-a,y<-b": " Oslo", "x<-b": " Athens"},
        **changes,
    }


def test_several_sources_have_answers_of_their_own_and_say_what_they_lend(tmp_path: Path) -> None:
    (pair,) = read_pairs(_jsonl(tmp_path, _several(split="test")), COUNTS, 0)
    assert {name: s.text for name, s in pair.sources.items()} == {
        "a": "The capital of Italy 0 is",
        "b": "The capital of Greece 0 is",
    }
    assert pair.answers == {"base": " Madrid", "a": " Rome", "b": " Athens"}
    assert {v: named_sources(v) for v in pair.counterfactual} == {
        "x<-a,y<-b": ("a", "b"),
        "x<-b": ("b",),
    }
    parquet = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist([_several(split="test")]), parquet)
    assert read_pairs(parquet, COUNTS, 0) == (pair,)


def test_choices_are_kept_with_their_pair(tmp_path: Path) -> None:
    (pair,) = read_pairs(
        _jsonl(tmp_path, _line(choices=[" Rome", " Madrid"], split="test")), COUNTS, 0
    )
    assert pair.choices == (" Rome", " Madrid")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (_several(source=_line()["source"]), "line 2: source: give it or sources, not both"),
        (_several(sources={"a": {}, "b": {"text": "x"}}), "line 2: sources.a.text: missing"),
        (_several(sources={"base": {"text": "x"}}), "line 2: sources.base: is no name of a source"),
        (_several(answers={"a": " x", "b": " y"}), "line 2: answers.base: missing"),
        (
            _several(answers={"base": " x", "a": " y", "b": " z", "c": " z"}),
            "line 2: answers.c: unknown field; .*base, a, b",
        ),
        (
            _several(counterfactual={"x": " y"}),
            'line 2: counterfactual.x: does not say from which of a, b each .*"x<-a"',
        ),
        (
            _several(counterfactual={"x<-c": " y"}),
            "line 2: counterfactual.x<-c: does not say from which of a, b",
        ),
        (
            _several(counterfactual={"x<-b": " y"}),
            "line 2: counterfactual: has x<-b; line 1 has x<-a,y<-b, x<-b",
        ),
        (
            {
                **_several(),
                "sources": {"a": {"text": "x"}},
                "answers": {"base": " x", "a": " y"},
                "counterfactual": {"x<-a": " y"},
            },
            "line 2: counterfactual: ",
        ),
        (_several(choices=[""]), "line 2: choices.0: should not be empty"),
    ],
)
def test_sources_that_do_not_go_together_are_said_with_line_and_field(
    tmp_path: Path, line: object, says: str
) -> None:
    with pytest.raises(PairsError, match=says):
        read_pairs(_jsonl(tmp_path, _several(), line), COUNTS, 0)


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there is no file"):
        read_pairs(tmp_path / "absent.jsonl", COUNTS, 0)
    with pytest.raises(PairsError, match="holds no pairs"):
        read_pairs(_jsonl(tmp_path, "", "  "), COUNTS, 0)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(PairsError, match="cannot be read as Parquet"):
        read_pairs(tmp_path / "bad.parquet", COUNTS, 0)
    (tmp_path / "bad.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(PairsError, match="UTF-8"):
        read_pairs(tmp_path / "bad.jsonl", COUNTS, 0)


MINE = """
from raysearch.problems.add_three import problem as ready
def make(highest=9): return ready(highest=highest)
made = ready()
def wrong(): return 3
def broken(): raise ZeroDivisionError("ouch")
"""


def test_a_problem_of_ones_own_is_found_in_a_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    assert (
        load_problem(f"{mine}:made", {}).name
        == load_problem("raysearch.problems.add_three", {}).name
    )
    assert (
        load_problem(f"{mine}:make", {"highest": 3}).model.run({"a": 1, "b": 2, "c": 3})["total"]
        == 6
    )


@pytest.mark.parametrize(
    ("use", "options", "says"),
    [
        (
            "raysearch.problems.nope",
            {},
            "there is no module .*give one of raysearch.problems.add_three",
        ),
        ("raysearch.problems.add_three:nope", {}, "has no 'nope'"),
        (
            "raysearch.problems.add_three",
            {"hghest": 1},
            "unexpected keyword argument 'hghest'; it takes highest",
        ),
        ("/nowhere/mine.py:make", {}, "there is no file /nowhere/mine.py"),
        ("{mine}:wrong", {}, "returned int; it must return a raysearch.Problem"),
        ("{mine}:broken", {}, "raised ZeroDivisionError: ouch"),
        ("{mine}:made", {"x": 1}, "takes no options; it got x"),
        ("{syntax}:made", {}, "cannot be run: SyntaxError"),
        ("json:tool", {}, "json is a module of Python itself"),
    ],
)
def test_a_problem_that_cannot_be_made_is_one_line(
    tmp_path: Path, use: str, options: dict[str, object], says: str
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "syntax.py").write_text("def (")
    use = use.format(mine=tmp_path / "mine.py", syntax=tmp_path / "syntax.py")
    with pytest.raises(JobError, match=says):
        load_problem(use, options)


def _tensors(tmp_path: Path) -> Path:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3) / 2
    kinds = {
        "ids": np.arange(4),
        "half": np.ones(2, np.float16),
        "odd[1]": np.zeros(2, np.float32),
        "one": np.float32([7]),
    }
    save_file({"rows": rows, **kinds, "truth": np.array([True, False])}, tmp_path / "t.safetensors")
    return tmp_path


def _given(name: str, **positions: list[int]) -> dict[str, object]:
    return {"tensor": name, "positions": {p: {"tokens": at} for p, at in positions.items()}}


def _of_tensors(
    base: dict[str, object], source: dict[str, object], **changes: object
) -> dict[str, object]:
    return _line(
        base=base,
        source=source,
        answers={"base": "0", "source": "1"},
        counterfactual={"v": "1"},
        **changes,
    )


def test_tensors_lie_beside_the_file_whole_or_row_by_row(tmp_path: Path) -> None:
    line = _of_tensors(
        _given("t.safetensors#rows[2]", p=[1, 2]), _given("t.safetensors#rows"), split="test"
    )
    path = _jsonl(_tensors(tmp_path), line)
    (pair,) = read_pairs(path, COUNTS, 0)
    assert pair.base.stimulus == Stimulus.of([3.0, 3.5, 4.0])
    assert (pair.base.tokens, pair.base.positions, pair.base.text) == ({"p": (1, 2)}, ("p",), "")
    assert pair.sources["source"].stimulus == Stimulus.of(
        [[n / 2 for n in range(r, r + 3)] for r in (0, 3, 6, 9)]
    )
    parquet = tmp_path / "pairs.parquet"
    pq.write_table(
        pa.Table.from_pylist([{**line, "source": _given("t.safetensors#rows[0]", p=[0])}]), parquet
    )
    assert read_pairs(parquet, COUNTS, 0)[0].base == pair.base


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("ids", Stimulus.of([0, 1, 2, 3])),
        ("half", Stimulus.of([1.0, 1.0])),
        ("truth", Stimulus.of([1, 0])),
        ("odd[1]", Stimulus.of([0.0, 0.0])),
    ],
)
def test_floats_become_float32_and_whole_numbers_stay_whole(
    tmp_path: Path, key: str, wanted: Stimulus
) -> None:
    given = _given(f"t.safetensors#{key}")
    (pair,) = read_pairs(_jsonl(_tensors(tmp_path), _of_tensors(given, given)), {"test": 1}, 0)
    assert pair.base.stimulus == wanted


def test_a_tensor_by_another_name_is_the_same_tensor(tmp_path: Path) -> None:
    save_file({"again": np.float32([0, 0.5, 1])}, tmp_path / "u.safetensors")
    names = ("t.safetensors#rows[0]", "u.safetensors#again")
    lines = [
        _of_tensors(_given(n), _given(n), split=s)
        for n, s in zip(names, ("fit", "test"), strict=True)
    ]
    with pytest.raises(PairsError, match="line 2: split: its base and source stand in line 1 too"):
        read_pairs(_jsonl(_tensors(tmp_path), *lines), COUNTS, 0)


@pytest.mark.parametrize(
    ("base", "says"),
    [
        (
            _given("t.safetensors"),
            "line 1: base.tensor: 't.safetensors' names no tensor; write file.safetensors#key",
        ),
        (_given("t.npy#x"), "line 1: base.tensor: 't.npy#x' names no tensor"),
        (
            {"tensor": [0.5, 1.0]},
            'line 1: base.tensor: should say where a tensor lies, "FILE.safetensors#KEY"',
        ),
        (
            _given("absent.safetensors#x"),
            "line 1: base.tensor: there is no file .*absent.safetensors",
        ),
        (
            _given("broken.safetensors#x"),
            "line 1: base.tensor: .*broken.safetensors: cannot be read as safetensors",
        ),
        (
            _given("t.safetensors#row"),
            "line 1: base.tensor: .*has no tensor 'row'; it has half, ids, odd",
        ),
        (
            _given("t.safetensors#rows[4]"),
            r"base.tensor: .*rows has shape \[4, 3\] and so rows 0 to 3; got row 4",
        ),
        (
            _given("t.safetensors#one[0]"),
            r"base.tensor: .*one has shape \[1\] and so no rows; got row 0",
        ),
        (_given("t.safetensors#rows", p=[]), "line 1: position 'p': .* are no token indices"),
        (
            _given("t.safetensors#rows", p=[-1]),
            "line 1: base.positions.p.tokens.0: .*greater than or equal to 0",
        ),
        (
            {"tensor": "t.safetensors#rows", "positions": {"p": [0, 1]}},
            "line 1: base.positions.p: ",
        ),
        ({"tensor": "t.safetensors#rows", "text": "abc"}, "line 1: base.text: unknown field"),
        (
            _given("t.safetensors#rows", last=[0]),
            "line 1: position 'last' is every input's last token",
        ),
    ],
)
def test_a_tensor_that_is_not_there_is_refused_with_line_and_field(
    tmp_path: Path, base: dict[str, object], says: str
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(PairsError, match=says) as refused:
        read_pairs(
            _jsonl(_tensors(tmp_path), _of_tensors(base, _given("t.safetensors#rows"))), COUNTS, 0
        )
    assert "\n" not in str(refused.value)
