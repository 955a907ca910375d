"""Scores: on every path what the oracle's logits give, by formulas written out anew; nothing of
them where none is declared."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raysearch import Input, Pair
from raysearch.causal import ONE_SOURCE, Stimulus
from raysearch.core.controls import arbitrary_labels
from raysearch.core.events import Encoded, Measured, Screened, Task
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.answer_scores import FARTHEST, Scoring, read_logits
from raysearch.engine.execution.predict import predict
from raysearch.engine.patching.build import build_row
from raysearch.engine.replica import Replica
from raysearch.errors import JobError
from tests.engine.loading.test_factory import loaded as loaded_module
from tests.engine.worlds import (
    POSITIONS,
    blocks_of,
    loaded,
    model_of,
    random_pairs,
    residual,
    world_of,
)

NAMES = ("logit_difference", "probability", "kl", "squared_error")
PAIRS = random_pairs(0, 16)
BLOCKS = blocks_of(PAIRS, 8)
PLACES = tuple(
    residual((layer, position)) for layer in (0, 1, 2) for position in (*POSITIONS, "last")
)
CLOSE = 2e-3
"""A quarter of a near-tie is what a logit may move by on a fast path; a score of a logit difference
by twice that."""


def by_hand(logits: Tensor, right: int, base: int) -> dict[str, float]:
    chances = logits.double().softmax(-1)
    wanted = torch.zeros_like(chances)
    wanted[right] = 1
    return {
        "logit_difference": float(logits[right] - logits[base]),
        "probability": float(chances[right]),
        "kl": float(-chances[right].log()),
        "squared_error": float(((chances - wanted) ** 2).sum()),
    }


def check(
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    wanted: Sequence[Mapping[str, float]],
    of: str = "x",
) -> None:
    assert list(scores) == sorted(NAMES), "as a journal gives them back"
    for name in NAMES:
        assert list(scores[name][of]) == pytest.approx([w[name] for w in wanted], abs=CLOSE), name


def replica_of(family: str, **settings: object) -> Replica:
    return Replica(
        loaded(model_of(family)), PAIRS, POSITIONS, ["x"], "w", settings=RunnerSettings(**settings)
    )  # type: ignore[arg-type]


@pytest.mark.slow_unless(path=["batched"])
@pytest.mark.slow_unless(family=["llama"])
@pytest.mark.parametrize(
    ("family", "path", "settings"),
    [("llama", "replay", {}), ("bloom", "batched", {}), ("llama", "plain", {"plain": True}), ("gpt2", "replay", {"rows": 3})],
)  # fmt: skip
def test_on_every_path_scores_are_what_the_oracles_logits_give(
    family: str, path: str, settings: dict[str, object]
) -> None:
    replica = replica_of(family, scores=NAMES, **settings)
    assert replica.opened.facts.path == path
    world, pairs = world_of(model_of(family)), {e.index: e for e in replica.opened.encoded}
    places = [i for i in PLACES if i.units[0].site.layer < len(world.network.blocks)]
    events = replica.do(Task(1, "measure", tuple(places), BLOCKS))
    by_id = {i.id: i for i in places}
    assert len(events) == len(places) * len(BLOCKS)
    for event in events:
        assert isinstance(event, Measured)
        assert event.scores is not None
        rows = [
            (pairs[p], build_row(pairs[p], by_id[event.intervention], world.taps))
            for p in event.pairs
        ]
        check(event.scores, [by_hand(world.oracle(row), *answers(pair)) for pair, row in rows])


def answers(pair: Encoded) -> tuple[int, int]:
    return pair.counterfactual["x"][0], pair.answers["base"][0]


def test_screening_scores_the_bases_own_run() -> None:
    replica = replica_of("llama", scores=NAMES)
    world, pairs = world_of(model_of("llama")), {e.index: e for e in replica.opened.encoded}
    for event in replica.do(Task(1, "screen", (), BLOCKS)):
        assert isinstance(event, Screened)
        assert event.scores is not None
        check(
            event.scores,
            [by_hand(world.plain(pairs[p].base), *answers(pairs[p])) for p in event.pairs],
        )


def test_a_swap_that_changes_nothing_and_is_not_run_has_the_scores_of_the_base() -> None:
    replica = replica_of("llama", scores=NAMES)
    free = Intervention(residual((1, "last")).units, control="self_swap")
    (block, _), (event, _) = BLOCKS, replica.do(Task(1, "measure", (free,), BLOCKS))
    (screened, _) = replica.do(Task(2, "screen", (), BLOCKS))
    assert isinstance(event, Measured)
    assert isinstance(screened, Screened)
    assert event.pairs == block.pairs
    assert event.scores == screened.scores


def test_without_declared_scores_none_are_told_and_outputs_are_the_same() -> None:
    bare, scored = (
        replica_of("llama", scores=names).do(Task(1, "measure", PLACES, BLOCKS))
        for names in ((), NAMES)
    )
    assert all(isinstance(e, Measured) and e.scores is None for e in bare)
    assert [e.outputs for e in bare if isinstance(e, Measured)] == [
        e.outputs for e in scored if isinstance(e, Measured)
    ]
    assert predict(torch.zeros(2, 5))[0].answer_logits is None


def test_under_arbitrary_labels_the_label_is_scored() -> None:
    replica = replica_of("llama", scores=("logit_difference",))
    world, encoded = world_of(model_of("llama")), replica.opened.encoded
    labels = arbitrary_labels(e.counterfactual["x"] for e in encoded)
    place = Intervention(PLACES[0].units, control="arbitrary_labels")
    (event, _) = replica.do(Task(1, "measure", (place,), BLOCKS))
    assert isinstance(event, Measured)
    assert event.scores is not None
    wanted = []
    for pair in (encoded[p] for p in event.pairs):
        logits = world.oracle(build_row(pair, PLACES[0], world.taps))
        wanted.append(
            float(logits[labels[pair.counterfactual["x"]][0]] - logits[pair.answers["base"][0]])
        )
    assert list(event.scores["logit_difference"]["x"]) == pytest.approx(wanted, abs=CLOSE)


def test_pairs_of_one_base_are_each_scored_by_their_own_answers() -> None:
    one = PAIRS[0]
    twins = (one, Pair(1, one.base, PAIRS[1].sources, one.answers, {"x": " w7"}, "test"))
    replica = Replica(
        loaded(model_of("llama")),
        twins,
        (),
        ["x"],
        "w",
        settings=RunnerSettings(scores=("probability",)),
    )
    (event,) = replica.do(Task(1, "screen", (), blocks_of(twins, 2)))
    assert isinstance(event, Screened)
    assert event.scores is not None
    chances = world_of(model_of("llama")).plain(replica.opened.encoded[0].base).softmax(-1)
    right = [e.counterfactual["x"][0] for e in replica.opened.encoded]
    assert right[0] != right[1]
    assert list(event.scores["probability"]["x"]) == pytest.approx(
        [float(chances[r]) for r in right], abs=1e-5
    )


class RulesOut(nn.Module):
    """Three classes of which the last can never be the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 3, bias=False)])
        nn.init.eye_(self.blocks[0].weight)  # type: ignore[arg-type]

    def forward(self, numbers: Tensor) -> Tensor:
        out: Tensor = self.blocks[0](numbers)
        return torch.cat((out[:, :2], torch.full_like(out[:, :1], -torch.inf)), dim=1)


def test_an_answer_that_the_model_rules_out_scores_numbers() -> None:
    one = Input(stimulus=Stimulus.of(torch.tensor([1.0, 0.0, 0.0])))
    pairs = (Pair(0, one, {ONE_SOURCE: one}, {"base": "0", ONE_SOURCE: "0"}, {"x": "2"}, "test"),)
    replica = Replica(
        loaded_module(RulesOut()), pairs, (), ["x"], "w", settings=RunnerSettings(scores=NAMES)
    )
    swap = Intervention((Unit(Site(0, "residual", "last")),))
    (event,) = replica.do(Task(1, "measure", (swap,), blocks_of(pairs, 1)))
    assert isinstance(event, Measured), event
    assert event.scores is not None
    found = {name: event.scores[name]["x"][0] for name in NAMES}
    assert found["logit_difference"] == -FARTHEST
    assert found["kl"] == pytest.approx(FARTHEST, abs=1)
    assert found["probability"] == 0
    assert found["squared_error"] == pytest.approx(
        1 + float((torch.tensor([1.0, 0.0]).softmax(0) ** 2).sum()), abs=1e-5
    )


def test_what_is_read_does_not_overflow() -> None:
    logits = torch.tensor([[3e4, 3e4 - 1.0, -3e4]])
    (read,) = read_logits(logits, np.array([[0, 1, 2, -1]]))
    p = 0.731059
    squares, total = p**2 + (1 - p) ** 2, -np.log(p)
    assert read == pytest.approx([squares, total, 0, -1, -6e4, 0], abs=1e-5)


def test_an_answer_of_several_tokens_is_not_scored_by_its_first() -> None:
    (pair,) = replica_of("llama").opened.encoded[:1]
    with pytest.raises(JobError, match=r"answer\.scores: are of answers of one token"):
        Scoring(NAMES, [replace(pair, counterfactual={"x": (3, 4)})])
