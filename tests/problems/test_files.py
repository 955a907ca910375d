"""Files of pairs and how a job's problem is found: what is refused, and how it is said."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysearch.errors import JobError, NotYetError, PairsError
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
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
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
    assert (first.answers, first.counterfactual) == ({"base": " Madrid", "source": " Rome"}, {"country": " Rome"})


def test_parquet_gives_the_same_pairs(tmp_path: Path) -> None:
    lines = [_line(n, split="test") for n in range(5)]
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(lines), path)
    assert read_pairs(path, COUNTS, 0) == read_pairs(_jsonl(tmp_path, *lines), COUNTS, 0)


def test_a_file_without_splits_is_dealt_out_by_the_ratio_and_no_pair_goes_to_two(tmp_path: Path) -> None:
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
        (_line(base={"positions": {}}), "line 2: base.text: missing"),
        (_line(bse=1), "line 2: bse: unknown field"),
        (_line(split="train"), r"line 2: split: .*\(got 'train'\)"),
        (_line(answers={"base": "", "source": "x"}), "line 2: answers.base: .*at least 1"),
        (_line(counterfactual={}), "line 2: counterfactual: "),
        (_line(counterfactual={"relation": "x"}), "line 2: counterfactual: has relation; line 1 has country"),
        (
            _line(base={"text": "abc", "positions": {"x": [2, 9]}}),
            r"line 2: position 'x': \[2, 9\) is no span of 'abc'",
        ),
        (_line(base={"text": "", "positions": {}}), "line 2: .*text is empty"),
        (_line(split="fit"), "line 2: split: its base and source stand in line 1 too"),
    ],
)
def test_a_line_that_is_not_of_the_form_is_refused_with_line_and_field(tmp_path: Path, line: object, says: str) -> None:
    with pytest.raises(PairsError, match=says) as e:
        read_pairs(_jsonl(tmp_path, _line(), line), COUNTS, 0)
    assert str(e.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (_line(sources={"a": {}}), "line 1: sources: not yet supported"),
        (_line(choices=[" A"]), "line 1: choices: not yet supported"),
        (_line(base={"tensor": "x#y"}), "line 1: base.tensor: not yet supported"),
        (_line(base={"text": "a b", "positions": {"x": {"tokens": [1]}}}), "line 1: base.positions: token indices"),
    ],
)
def test_what_later_versions_read_is_refused_not_ignored(tmp_path: Path, line: object, says: str) -> None:
    with pytest.raises(NotYetError, match=says):
        read_pairs(_jsonl(tmp_path, line), COUNTS, 0)


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
    assert load_problem(f"{mine}:made", {}).name == load_problem("raysearch.problems.add_three", {}).name
    assert load_problem(f"{mine}:make", {"highest": 3}).model.run({"a": 1, "b": 2, "c": 3})["total"] == 6


@pytest.mark.parametrize(
    ("use", "options", "says"),
    [
        ("raysearch.problems.nope", {}, "there is no module .*give one of raysearch.problems.add_three"),
        ("raysearch.problems.add_three:nope", {}, "has no 'nope'"),
        ("raysearch.problems.add_three", {"hghest": 1}, "unexpected keyword argument 'hghest'; it takes highest"),
        ("/nowhere/mine.py:make", {}, "there is no file /nowhere/mine.py"),
        ("{mine}:wrong", {}, "returned int; it must return a raysearch.causal.Problem"),
        ("{mine}:broken", {}, "raised ZeroDivisionError: ouch"),
        ("{mine}:made", {"x": 1}, "takes no options; it got x"),
        ("{syntax}:made", {}, "cannot be run: SyntaxError"),
        ("json:tool", {}, "has no 'tool'|is module"),
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
