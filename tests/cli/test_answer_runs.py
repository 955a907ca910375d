"""Whole runs, by the command line, on what answers can be: of several tokens, from several sources,
chosen among letters in a chat."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.cli.conftest import ROOT, Shell

LOCAL = ("--pool", "local", "--tracking-uri", "none", "-q")
DIGITS = {
    name: [at, at + 1] for at, name in enumerate(("a_tens", "a_ones", "plus", "b_tens", "b_ones"))
}


def total(a: str, b: str) -> str:
    return str(int(a) + int(b))


def line(rng: random.Random) -> dict[str, Any]:
    """A sum of two numbers, with two others that lend a digit each: "47+35=" -> "82"."""
    numbers = {
        name: (str(rng.randint(10, 49)), str(rng.randint(10, 49))) for name in ("base", "a", "b")
    }
    inputs = {name: {"text": f"{x}+{y}=", "positions": DIGITS} for name, (x, y) in numbers.items()}
    (x, y), (a, _), (_, b) = numbers.values()
    expected = {
        "a_ones<-a": total(x[0] + a[1], y),
        "b_ones<-b": total(x, y[0] + b[1]),
        "a_ones<-a,b_ones<-b": total(x[0] + a[1], y[0] + b[1]),
    }
    return {
        "base": inputs.pop("base"),
        "sources": inputs,
        "answers": {name: total(*both) for name, both in numbers.items()},
        "counterfactual": expected,
        "split": "test",
    }


@pytest.mark.slow
def test_what_two_sources_lend_is_found_where_each_lends_it_and_both_digits_count(
    shell: Shell, tmp_path: Path
) -> None:
    rng = random.Random(0)
    (tmp_path / "sums.jsonl").write_text("\n".join(json.dumps(line(rng)) for _ in range(120)))
    job = {
        "name": "sums",
        "model": {"path": str(ROOT / "jobs" / "models" / "two_digit_addition")},
        "problem": {"pairs": "sums.jsonl"},
        "pairs": {"test": 120, "fit": 0, "holdout": 0},
        "answer": {"compare": "sequence"},
        "space": {
            "components": ["embedding"],
            "positions": ["a_ones", "b_ones"],
            "units": [
                [
                    {"component": "embedding", "position": "a_ones", "source": "a"},
                    {"component": "embedding", "position": "b_ones", "source": "b"},
                ]
            ],
        },
        "test": {"max_pairs": 120},
    }
    (tmp_path / "sums.yaml").write_text(yaml.safe_dump(job))
    done = shell("run", "sums.yaml", *LOCAL)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    found = {}
    for row in shell.json("results", str(run), "-o", "json"):
        units = [(unit["site"]["position"], unit["source"]) for unit in json.loads(row["units"])]
        found[row["variable"], tuple(units)] = row["verdict"], row["iia"]
    assert len(found) == 5
    true = {
        ("a_ones<-a", (("a_ones", "a"),)),
        ("b_ones<-b", (("b_ones", "b"),)),
        ("a_ones<-a,b_ones<-b", (("a_ones", "a"), ("b_ones", "b"))),
    }
    assert {key for key, (verdict, _) in found.items() if verdict == "accept"} == true
    assert all(found[key][1] == 1 for key in true)
    observed = pq.read_table(run / "tables" / "observations").to_pylist()
    assert {len(output) for row in observed for output in row["outputs"]} == {2}
    assert (
        shell("resume", str(run), *LOCAL[2:]).returncode == 0
    )  # what is kept of the pairs is what they are


@pytest.mark.slow
def test_a_question_in_a_chat_is_answered_by_one_of_its_letters(
    shell: Shell, tmp_path: Path
) -> None:
    job = ROOT / "jobs" / "multiple_choice.yaml"
    small = (
        "pairs.test=64",
        "pairs.holdout=8",
        "test.max_pairs=64",
        "space.layers=[1]",
        "space.positions=[color, last]",
    )
    done = shell("run", str(job), *LOCAL, *(part for key in small for part in ("--set", key)))
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    found = {
        (row["variable"], row["position"]): row["verdict"]
        for row in shell.json("results", str(run), "-o", "json")
    }
    assert {key for key, verdict in found.items() if verdict == "accept"} == {
        ("answer_token", "last")
    }
    for pair in pq.read_table(run / "pairs.parquet").to_pylist():
        assert "Answer" not in pair["base_text"]  # the template says it
        assert pair["base_output"] is None or set(pair["base_output"]) <= set(pair["choice_ids"])
    sets = {row["set"] for row in pq.read_table(run / "tables" / "sets").to_pylist()}
    assert sets == {"same_slot", "other_slot", "other_slot_same_letters"}
