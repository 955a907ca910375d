"""Bad input, by the command line: one line that says what was wrong, what it got and what would do;
the right exit code; no traceback."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import QUICKSTART, ROOT, Shell

PLANTED = str(ROOT / "jobs/planted/model")


def _quickstart(**changes: Any) -> dict[str, Any]:
    job = yaml.safe_load(QUICKSTART.read_text())
    job["model"]["path"] = PLANTED
    job["resources"] = {"gpus": 0}
    for path, value in changes.items():
        room, _, key = path.partition("__")
        if key:
            job.setdefault(room, {})[key] = value
        else:
            job[room] = value
    return job


def _pair(
    base: tuple[int, int, int], source: tuple[int, int, int], **changes: Any
) -> dict[str, Any]:
    def side(values: tuple[int, int, int]) -> dict[str, Any]:
        text = "+".join(map(str, values)) + "="
        return {"text": text, "positions": {"a": [0, len(str(values[0]))]}}

    return {
        "base": side(base),
        "source": side(source),
        "answers": {"base": str(sum(base)), "source": str(sum(source))},
        "counterfactual": {"a": str(source[0] + base[1] + base[2])},
        "split": "test",
        **changes,
    }


def _with_pairs(folder: Path, *pairs: dict[str, Any] | str, **changes: Any) -> dict[str, Any]:
    (folder / "pairs.jsonl").write_text(
        "\n".join(p if isinstance(p, str) else json.dumps(p) for p in pairs)
    )
    job = _quickstart(**changes)
    job["problem"] = {"pairs": "pairs.jsonl"}
    job["space"] = {"layers": "all"} | changes.get("space", {})
    return job


def _unknown_key(folder: Path) -> dict[str, Any]:
    return _quickstart(tests={"threshold": 0.9})


def _layer_out_of_range(folder: Path) -> dict[str, Any]:
    return _quickstart(space__layers=[2, 40])


def _head_without_heads(folder: Path) -> dict[str, Any]:
    return _quickstart(space__heads=[0])


def _coordinate_out_of_range(folder: Path) -> dict[str, Any]:
    return _quickstart(space__subspaces=[{"coordinates": {"from": 60, "to": 64}}])


def _unit_at_unknown_position(folder: Path) -> dict[str, Any]:
    return _quickstart(
        space__units=[[{"layer": 0, "position": "a"}, {"layer": 1, "position": "plus3"}]]
    )


def _unit_twice(folder: Path) -> dict[str, Any]:
    return _quickstart(space__units=[[{"layer": 0, "position": "a"}] * 2])


def _unknown_position(folder: Path) -> dict[str, Any]:
    return _quickstart(space__positions=["plus3"])


def _unknown_variable(folder: Path) -> dict[str, Any]:
    return _quickstart(space__variables=["sum_bc"])


def _unreadable_text(folder: Path) -> dict[str, Any]:
    blank = _pair((1, 2, 3), (3, 2, 1))
    blank["base"] = {"text": "one+2+3=", "positions": {"a": [0, 3]}}
    return _with_pairs(folder, blank)


def _span_cuts_a_token(folder: Path) -> dict[str, Any]:
    cut = _pair((12, 2, 3), (3, 2, 1))
    cut["base"]["positions"] = {"a": [0, 1]}
    return _with_pairs(folder, cut)


def _empty_pairs(folder: Path) -> dict[str, Any]:
    return _with_pairs(folder, "")


def _never_solved(folder: Path) -> dict[str, Any]:
    wrong = {"base": "27", "source": "26"}
    return _with_pairs(folder, *(_pair((n, 2, 3), (5, n, 1), answers=wrong) for n in range(5)))


def _unreadable_model(folder: Path) -> dict[str, Any]:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{ not json")
    return _quickstart(model__path=str(folder / "model"))


def _absent_model(folder: Path) -> dict[str, Any]:
    return _quickstart(model__path="./nothing/here")


def _twins(folder: Path) -> dict[str, Any]:
    pairs = [_pair((n, 2, 3), (5, n, 1)) for n in range(5)]
    for p in pairs:
        p["counterfactual"]["b"] = p["counterfactual"]["a"]
    return _with_pairs(folder, *pairs)


def _never_changes(folder: Path) -> dict[str, Any]:
    return _with_pairs(folder, *(_pair((5, n, 3), (5, 1, n)) for n in range(5)))


def _span_named_last(folder: Path) -> dict[str, Any]:
    pair = _pair((1, 2, 3), (3, 2, 1))
    pair["base"]["positions"]["last"] = [0, 1]
    return _with_pairs(folder, pair)


def _bad_line(folder: Path) -> dict[str, Any]:
    return _with_pairs(folder, _pair((1, 2, 3), (3, 2, 1)), '{"base": 3}')


def _not_yet(folder: Path) -> dict[str, Any]:
    return _quickstart(space__units=[[{"layer": 0, "position": "a", "subspace": {"das": 2}}]])


def _threshold_of_pairs_that_do_not_decide(folder: Path) -> dict[str, Any]:
    return _quickstart(pairs__kinds="change", test__keep_threshold=0.9)


def _disjoint_values_of_a_file(folder: Path) -> dict[str, Any]:
    return _with_pairs(folder, _pair((1, 2, 3), (3, 2, 1))) | {"pairs": {"disjoint": ["a"]}}


def _too_many_replicas(folder: Path) -> dict[str, Any]:
    return _quickstart(resources={"replicas": 2})


CASES: list[tuple[Callable[[Path], dict[str, Any]], str]] = [
    (_unknown_key, r"tests: unknown key; did you mean 'test'? allowed: name,"),
    (_layer_out_of_range, "space.layers: 40 is no layer of model; it has 0..3"),
    (_head_without_heads, "space.heads: [0] given, and none of space.components has heads"),
    (
        _coordinate_out_of_range,
        "space.subspaces: 64 is no coordinate of residual in model; it has 0..63",
    ),
    (
        _unit_at_unknown_position,
        "space.units.0.1.position: 'plus3' is no position of add_three; did you mean 'plus2'?",
    ),
    (_unit_twice, "space.units: set 0 interchanges residual of layer 0 at a twice"),
    (
        _unknown_position,
        "space.positions: 'plus3' is no position of add_three; did you mean 'plus2'? it has a, "
        "plus1",
    ),
    (
        _unknown_variable,
        "space.variables: 'sum_bc' is no variable of add_three; did you mean 'sum_ab'?",
    ),
    (_unreadable_text, "the tokenizer cannot read 'one+2+3='"),
    (_span_cuts_a_token, "pairs.jsonl: line 1: position 'a' of the base: [0, 1) is '1', but token"),
    (_empty_pairs, "pairs.jsonl: holds no pairs; a search needs at least one line"),
    (_never_solved, "the model solves 0 of the 5 test pairs"),
    (_unreadable_model, "the configuration cannot be loaded"),
    (_absent_model, "model.path: there is no"),
    (_twins, "no pair tells 'a' and 'b' apart"),
    (_never_changes, "'a' never changes the answer"),
    (_span_named_last, "line 1: position 'last' is every text's last token"),
    (_bad_line, "pairs.jsonl: line 2: base"),
    (_not_yet, "space.units.0.0.subspace: not yet supported by this version"),
    (
        _threshold_of_pairs_that_do_not_decide,
        "test.keep_threshold: is of the pairs that a variable leaves alone",
    ),
    (_disjoint_values_of_a_file, "pairs.disjoint: pairs.jsonl does not say the values of a"),
    (_too_many_replicas, "resources.replicas: 2 need Ray; --pool local has one replica"),
]


@pytest.mark.parametrize(
    ("make", "says"), CASES, ids=[make.__name__.strip("_") for make, _ in CASES]
)
def test_bad_input_is_one_line_and_exit_code_2(
    shell: Shell, make: Callable[[Path], dict[str, Any]], says: str
) -> None:
    job = shell.folder / "job.yaml"
    job.write_text(yaml.safe_dump(make(shell.folder)))
    done = shell("run", str(job), "--pool", "local", "--tracking-uri", "none", "-q")
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("raysearch: ")
    assert says in lines[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run", "absent.yaml"), 2, "absent.yaml: cannot be read (No such file or directory)"),
        (
            ("run", str(QUICKSTART), "--store", "/proc/nothing"),
            2,
            "store /proc/nothing: cannot be written",
        ),
        (
            ("run", str(QUICKSTART), "--store", "ftp://bucket/x"),
            2,
            "give a folder, s3://BUCKET/PREFIX, gs:// or abfs://",
        ),
        (
            ("submit", str(QUICKSTART), "--address", "http://head:8265"),
            2,
            "--store ./runs: dies with the job's folder",
        ),
        (
            ("run", str(QUICKSTART), "--address", "127.0.0.1:1"),
            4,
            "Ray at 127.0.0.1:1 cannot be reached",
        ),
        (
            ("run", str(QUICKSTART), "--address", "http://127.0.0.1:1"),
            4,
            "http://127.0.0.1:1 is the address of a job server",
        ),
        (("status", "nothing"), 4, "there is no run 'nothing'"),
        (
            ("run", str(QUICKSTART), "--set", "test.threshold=2"),
            2,
            "test.threshold: input should be less than 1 (got 2)",
        ),
        (("resume", "nothing"), 2, "there is no run 'nothing'"),
        (("results", "nothing"), 2, "there is no run 'nothing'"),
        (("submit",), 2, "Missing argument 'JOB'"),
        (("run", str(QUICKSTART), "--pool", "cloud"), 2, "'cloud' is not one of 'ray', 'local'"),
    ],
)
def test_a_wrong_call_says_what_would_do(
    shell: Shell, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = shell(*arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_of_pairs_is_searched_without_any_python(shell: Shell) -> None:
    numbers = [(n, m, k) for n in range(4) for m in range(4) for k in range(3)]
    pairs = [_pair(b, s) for b, s in zip(numbers, reversed(numbers), strict=True) if b[0] != s[0]]
    job = shell.folder / "job.yaml"
    job.write_text(yaml.safe_dump(_with_pairs(shell.folder, *pairs, pairs__test=40)))
    done = shell("run", str(job), "--pool", "local", "--tracking-uri", "none", "-q")
    assert done.returncode == 0, done.stderr
    planned = shell.json("plan", str(job), "-o", "json")
    at_one = next(p for p in planned["powers"] if p["iia"] == 1.0)
    assert at_one["accept"] == pytest.approx(1.0)
    rows = shell.json("results", "latest", "-o", "json")
    assert {r["claim"] for r in rows} == {"these_pairs"}
    assert [(r["layer"], r["position"]) for r in rows if r["verdict"] == "accept"] == [(0, "a")]


def test_plan_checks_a_job_and_reads_no_weights(shell: Shell) -> None:
    planned = shell.json("plan", str(QUICKSTART), "-o", "json")
    assert (planned["hypotheses"], planned["interventions"], planned["layers"]) == (120, 24, 4)
    assert planned["apart"]["a / b"] > 0.5
    at_one = next(p for p in planned["powers"] if p["iia"] == 1.0)
    assert at_one["accept"] == pytest.approx(1.0)
    # All match: the fewest n at which the mixture of both parts of the prior, a spike at 1 (1/4) and
    # the uniform rest above 0.8, is K / 0.05 times the likelihood at 0.8. A look is there.
    evidence = lambda n: (1 / 4 + 3 / 4 * (1 - 0.8 ** (n + 1)) / (0.2 * (n + 1))) / 0.8**n  # noqa: E731
    fewest = next(n for n in range(2, 256) if evidence(n) >= 120 / 0.05)
    assert fewest == 40
    assert at_one["pairs"] == pytest.approx(fewest)
    text = shell("plan", str(QUICKSTART)).stdout
    assert "P(undecided)" in text
    assert "sites       24: residual at a, plus1, b, plus2, c, last\n" in text
    units = "space.units=[[{layer: 0, position: a}, {layer: 1, position: b}]]"
    assert "sites       25: residual at a, plus1, b, plus2, c, last; 1 explicit set of units\n" in (
        shell("plan", str(QUICKSTART), "--set", units).stdout
    )
    wrong = shell("plan", str(QUICKSTART), "--set", "space.layers=[9]")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
