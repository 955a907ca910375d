"""The words of a plan."""

import json
from pathlib import Path

import pytest

from raysearch.cli import plan as plans
from raysearch.cli.terminal import in_width
from raysearch.core.hypothesis import Subspace
from raysearch.core.space import Grid
from raysearch.errors import JobError
from raysearch.runner.plans.plan import _sites_words

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (Grid("residual", (0, 1), (None,), ("country", "last")), "residual at country, last"),
        (Grid("head", (0, 1), tuple(range(9)), ("last",)), "head 0..8 at last"),
        (Grid("key", (0,), (0, 2), ("last",)), "key 0, 2 at last"),
        (Grid("query", (0,), (4,), ("last",)), "query 4 at last"),
        (
            Grid("residual", (0,), (None,), ("a",), (Subspace(), Subspace(coordinates=(1,)))),
            "residual at a, 2 subspaces each",
        ),
    ],
)
def test_a_grid_is_told_as_component_heads_and_positions(grid: Grid, words: str) -> None:
    assert _sites_words(grid) == words


def planned(output: str, *sets: str) -> str:
    job = ROOT / "jobs" / "quickstart.yaml"
    return plans.plan_text(plans.make_plan(job, ("pairs.test=64", *sets)), output)


@pytest.mark.slow
def test_a_plan_names_the_proposer_and_what_k_means_for_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        """
class Some:
    max_hypotheses = 1000
    def __init__(self, space): ...
    def propose(self, known): return []
class Open(Some):
    max_hypotheses = None
"""
    )
    said = {"": "proposer    exhaustive: tests all 120; each is judged at K = 120\n"}
    said["propose.use=refine"] = (
        "refine: tests some of the 120, as it learns; each is judged at K = 120, whichever"
    )
    said[f"propose.use={mine}:Some"] = (
        "mine.py:Some: what it proposes is judged at K = 1000, the most that it may"
    )
    said[f"propose.use={mine}:Open"] = (
        "mine.py:Open, open-ended: the n proposals of its g-th generation are judged at K = n g(g + 1)"
    )
    chances = []
    for use, words in said.items():
        assert words in planned("text", *filter(None, [use]))
        facts = json.loads(planned("json", *filter(None, [use])))
        chances.append((facts["k"], next(p["accept"] for p in facts["powers"] if p["iia"] == 0.95)))
    assert [k for k, _ in chances] == [120, 120, 1000, None]
    at_120, refined, at_1000, at_240 = (accept for _, accept in chances)
    assert at_120 == refined > at_240 > at_1000


@pytest.mark.parametrize(
    ("propose", "says"),
    [
        ("{use: nowhere.py:Mine}", "propose.use: there is no file .*nowhere.py"),
        (
            "{use: refine, options: {stp: 2}}",
            "propose.options: refine: got an unexpected keyword argument 'stp'",
        ),
    ],
)
def test_a_plan_refuses_a_proposer_that_a_run_would_refuse(propose: str, says: str) -> None:
    with pytest.raises(JobError, match=says):
        planned("json", f"propose={propose}")


def test_a_plan_shows_pairs_as_the_model_gets_them() -> None:
    said = planned("text", "space.positions=[b, last]")
    shown = said[said.index("test pairs as the model gets them") :].splitlines()[1:9]
    assert shown[0].endswith("tokens of the base: b 2, last 5")
    (base,) = (line for line in shown if line.split()[0] == "base")
    (source,) = (line for line in shown if line.split()[0] == "source")
    (a, b, c), (_, other, _) = (
        [int(token) for token in line.split()[1].split("|")[0:5:2]] for line in (base, source)
    )
    assert base.endswith(f"|= -> '{a + b + c}'")
    assert f"  b                      -> '{a + other + c}'" in "\n".join(shown)


def test_pairs_that_do_not_count_take_a_line_for_each_reason_and_not_for_each_variable() -> None:
    said = planned("text").splitlines()
    at = next(i for i, line in enumerate(said) if line.startswith("pairs that do not count"))
    assert said[at + 1].startswith("  15 (total) to 25 (b) test pairs: the variable leaves")
    assert said[at + 2].startswith("  29 (total) to 55 (b) holdout pairs: the variable leaves")
    assert said[at + 3] == ""


def test_lines_wider_than_a_terminal_break_between_words_under_their_value() -> None:
    text = (
        "name: 3\n  model     planted/model of four layers\n  many  words, and no end\n\n    short"
    )
    assert in_width(text, 26).split("\n") == [
        "name: 3",
        "  model     planted/model",
        "            of four layers",
        "  many  words, and no end",
        "",
        "    short",
    ]
    assert in_width(text, 80) == text
    assert in_width("some words  after many others than this", 20).split("\n")[1:] == [
        "  many others than",
        "  this",
    ]


def test_a_plan_on_tensors_shows_their_numbers() -> None:
    job = ROOT / "jobs" / "hierarchical_equality_handcrafted.yaml"
    said = str(plans.make_plan(job, ()))
    shown = said[said.index("test pairs as the model gets them") :].splitlines()
    assert shown[1].endswith("places of the base: last 0")
    base, source = (line.split() for line in shown[2:4])
    for name, line in (("base", base), ("source", source)):
        assert line[:3] == [name, "float32", "[8]:"]
        assert len([float(number.rstrip(",")) for number in line[3:11]]) == 8
        assert line[11] == "->"
    assert base[3:11] != source[3:11]
