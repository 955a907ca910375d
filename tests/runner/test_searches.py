"""The searches of docs/reference/searches.md in a small form: the files load, run, and find what can be known
beforehand."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from raysearch.cluster.local_pool import LocalPool
from raysearch.core.events import Event, Task
from raysearch.core.records import Decided, Proposed, Record
from raysearch.core.space import HypothesisSpace
from raysearch.driver import drive
from raysearch.job import Job
from raysearch.runner.resolution.resolve import resolve
from raysearch.runner.session.pools import spec_of

JOBS = Path(__file__).parents[2] / "jobs"
SMALL = ("pairs.test=96", "pairs.holdout=8", "test.max_pairs=96", "test.false_accept=0.2")

Cell = tuple[str, str, int, str]
"""Variable, component, layer, position."""


class Kept:
    """A ledger that only remembers what the search said."""

    def __init__(self) -> None:
        self.said: list[Record] = []

    def write_events(self, events: Sequence[Event]) -> None: ...

    def tensors_for(self, task: Task) -> dict[str, bytes]:
        return {}

    def write_records(self, notes: Sequence[Record]) -> None:
        self.said += notes


def run(name: str, *sets: str, job: Path | None = None) -> tuple[Kept, HypothesisSpace]:
    question = resolve(Job.load(job or JOBS / f"{name}.yaml", (*SMALL, *sets)))
    kept = Kept()
    pool = LocalPool(spec_of(question, question.job))
    opened = pool.open()
    search = question.search(opened.facts, opened.encoded)
    drive(search, pool, kept, lambda _: None)
    assert search.done
    return kept, question.space(opened.facts)


def accepted(kept: Kept) -> set[Cell]:
    found = [n.hypothesis for n in kept.said if isinstance(n, Decided) and n.verdict == "accept"]
    cells = set()
    for hypothesis in found:
        (unit,) = hypothesis.intervention.units
        cells.add((hypothesis.variable, unit.site.component, unit.site.layer, unit.site.position))
    return cells


SUMS: set[Cell] = (
    {(f"digit{i}", "block_input", 0, f"token_{i - 1}") for i in range(1, 7)}
    | {(f"sum{i}", "residual", 0, f"token_{i - 1}") for i in range(2, 7)}
    | {("digit1", "residual", 0, "token_0")}
)


def test_a_gru_keeps_the_sum_so_far_in_the_state_of_each_step_and_nowhere_else() -> None:
    kept, space = run("running_sum")
    assert len(space) == 132
    assert accepted(kept) == SUMS


def steps(folder: Path, most: int | None) -> Kept:
    """running_sum with a proposer of one's own; `most`: its K."""
    (folder / "mine.py").write_text(
        f"""
class Steps:
    "One time step after the other, until the first sum is found."
    max_hypotheses = {most}
    def __init__(self, space, until):
        self.space, self.until = space, until
    def propose(self, known):
        found = [d for d in known.decided.values() if d.verdict == "accept" and d.hypothesis.variable == self.until]
        at = f"token_{{known.generations}}"
        return [] if found else [h for h in self.space if h.intervention.units[0].site.position == at]
"""
    )
    text = (JOBS / "running_sum.yaml").read_text()
    for kind in ("models", "problems"):
        text = text.replace(f" {kind}/running_sum.py", f" {JOBS}/{kind}/running_sum.py")
    (folder / "job.yaml").write_text(
        text + "\npropose: {use: mine.py:Steps, options: {until: sum2}}\n"
    )
    kept, _ = run("", job=folder / "job.yaml")
    return kept


def test_ones_own_proposer_is_asked_generation_by_generation(tmp_path: Path) -> None:
    kept = steps(tmp_path, most=None)
    wanted = {cell for cell in SUMS if cell[3] in ("token_0", "token_1")}
    assert accepted(kept) == wanted
    proposed = {
        (n.proposed_by, n.generation, n.hypothesis.intervention.units[0].site.position)
        for n in kept.said
        if isinstance(n, Proposed)
    }
    assert proposed == {("Steps", 0, "token_0"), ("Steps", 1, "token_1")}


@pytest.mark.slow
def test_what_ones_own_proposer_says_is_its_k_is_what_each_accept_pays_for_even_beyond_the_space(
    tmp_path: Path,
) -> None:
    kept = steps(tmp_path, most=1000)
    accepts = [
        n.log_evidence for n in kept.said if isinstance(n, Decided) and n.verdict == "accept"
    ]
    assert accepts
    assert min(accepts) >= math.log(1000 / 0.2)


def test_a_vision_transformer_holds_symbols_at_their_patches_and_the_answer_at_the_class_token() -> (
    None
):
    kept, space = run("marked_symbol", "pairs.test=192", "test.max_pairs=192")
    assert len(space) == 160
    at = {"first": "token_1", "marker": "token_5", "second": "token_9"}
    found = accepted(kept)
    assert {cell for cell in found if cell[1] == "vit.embeddings"} == {
        (variable, "vit.embeddings", None, position) for variable, position in at.items()
    }
    assert {cell for cell in found if cell[2] == 2} == {("marked", "residual", 2, "token_0")}


@pytest.mark.slow
def test_an_activation_is_the_same_by_its_other_name_and_another_place_is_another() -> None:
    kept, _ = run("cross_layer")
    decided = {n.hypothesis: n.verdict for n in kept.said if isinstance(n, Decided)}
    lent: dict[tuple[str, int], set[str]] = {}
    for hypothesis, verdict in decided.items():
        (unit,) = hypothesis.intervention.units
        found = lent.setdefault((unit.site.position, unit.site.layer), set())
        if (
            verdict == "accept"
            and unit.source_site is not None
            and unit.source_site.component != unit.site.component
        ):
            found.add(hypothesis.variable)
        if unit.source_site is not None and unit.source_site.position != unit.site.position:
            assert verdict != "accept"
    same = {
        ("a", 0): {"a"},
        ("b", 1): {"b"},
        ("c", 1): {"c"},
        ("plus2", 2): {"sum_ab"},
        ("last", 2): {"total"},
    }
    assert {place: found for place, found in lent.items() if place in same} == same


@pytest.mark.slow
def test_things_in_boxes_are_found_in_texts_of_different_lengths() -> None:
    kept, space = run("entity_tracking", "space.layers=[2]")
    assert len(space) == 20
    assert accepted(kept) == {
        ("thing", "embedding", None, "named.first"),
        ("asked", "embedding", None, "last"),
        ("thing", "residual", 2, "last"),
    }


@pytest.mark.parametrize("name", ["indirect_object_heads"])
def test_searches_on_larger_models_are_jobs(name: str) -> None:
    if not (JOBS.parent / "models").exists():
        pytest.skip("no models/: make install fetches it")
    question = resolve(Job.load(JOBS / f"{name}.yaml", SMALL))
    assert len(question.job.space.units) == 5
    assert question.positions == ("last",)
