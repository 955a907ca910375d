"""A replica: tasks in, events out; the same outputs however the work is grouped, and failures that spare the others."""

import logging
import pickle
import random

import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedModel

from raysearch.engine.decide import NEAR_TIE, decide
from raysearch.engine.forward import plain_logits
from raysearch.engine.interchange import oracle, row_of
from raysearch.engine.replica import Replica, Settings
from raysearch.engine.sites import sizes_of
from raysearch.errors import ModelError
from raysearch.search.events import Block, Event, Failed, Ids, Measured, Screened, Task
from raysearch.search.hypothesis import Intervention
from tests.engine.worlds import (
    CONFIGS,
    POSITIONS,
    WORDS,
    blocks_of,
    loaded,
    model_of,
    random_pairs,
    residual,
    word_tokenizer,
)

PAIRS = random_pairs(0, 24)
BLOCKS = blocks_of(PAIRS, 8)
PLACES = tuple(residual((layer, position)) for layer in (0, 1, 2) for position in (*POSITIONS, "last"))

Seen = dict[tuple[str, int], tuple[Ids, ...]]


def replica_of(model: PreTrainedModel, pairs=PAIRS, **settings) -> Replica:
    return Replica(loaded(model), pairs, POSITIONS, ["x"], "worker-1", "node-1", Settings(**settings))


def measure(replica: Replica, interventions=PLACES, blocks=BLOCKS, **task) -> list[Event]:
    return replica.do(Task(task.pop("id", 1), task.pop("kind", "measure"), tuple(interventions), tuple(blocks), **task))


def outputs(events: list[Event]) -> Seen:
    assert all(isinstance(e, Measured) for e in events), events
    return {(e.intervention, e.block): e.outputs for e in events}


def by_oracle(replica: Replica, model: PreTrainedModel) -> Seen:
    pairs = {e.index: e for e in replica.opened.encoded}
    found: Seen = {}
    for intervention in PLACES:
        for block in BLOCKS:
            rows = [row_of(pairs[p], intervention, sizes_of(model)) for p in block.pairs]
            found[intervention.id, block.index] = tuple((decide(oracle(model, r)[None])[0].id,) for r in rows)
    return found


class Counter:
    """Counts the rows that a model runs, by a hook of the test's own on its embedding."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.rows = 0
        model.get_input_embeddings().register_forward_hook(self._count)

    def _count(self, module, inputs, output) -> None:
        self.rows += len(inputs[0])

    def since(self) -> int:
        rows, self.rows = self.rows, 0
        return rows


@pytest.mark.parametrize("family", CONFIGS)
def test_measured_outputs_are_the_oracles(family: str) -> None:
    model = model_of(family)
    replica = replica_of(model)
    assert replica.opened.facts.path == "batched"
    places = [i for i in PLACES if i.units[0].site.layer < sizes_of(model).layers]
    expected = by_oracle(replica, model) if len(places) == len(PLACES) else None
    seen = outputs(measure(replica, places))
    if expected is None:
        pairs = replica.opened.encoded
        expected = {
            (i.id, b.index): tuple(
                (int(oracle(model, row_of(pairs[p], i, sizes_of(model))).argmax()),) for p in b.pairs
            )
            for i in places
            for b in BLOCKS
        }
    assert seen == expected
    assert len({o for block in seen.values() for o in block}) > 3  # else nothing was tested


def test_screening_gives_the_models_own_outputs_for_bases_and_sources() -> None:
    model = model_of("llama")
    replica = replica_of(model)
    events = replica.do(Task(7, "screen", (), BLOCKS, attempt=2))
    assert [(e.task, e.split, e.block, e.pairs) for e in events] == [(7, "test", b.index, b.pairs) for b in BLOCKS]
    for event in events:
        assert isinstance(event, Screened)
        assert (event.worker, event.device, event.attempt) == ("worker-1", "cpu", 2)
        for at, p in enumerate(event.pairs):
            pair = replica.opened.encoded[p]
            assert event.base[at] == (int(plain_logits(model, pair.base).argmax()),)
            assert event.sources["source"][at] == (int(plain_logits(model, pair.sources["source"]).argmax()),)


def test_events_say_which_task_attempt_worker_and_how_long() -> None:
    events = measure(replica_of(model_of("llama")), id=9, attempt=3)
    assert [(e.intervention, e.block) for e in events] == [(i.id, b.index) for i in PLACES for b in BLOCKS]
    for e in events:
        assert (e.task, e.attempt, e.worker, e.device, e.rows) == (9, 3, "worker-1", "cpu", 8)
        assert e.seconds > 0


def test_an_estimate_is_measured_like_any_other() -> None:
    replica = replica_of(model_of("llama"))
    holdout = [Block("holdout", 0, (3, 4))]
    (event,) = measure(replica, PLACES[:1], holdout, kind="estimate")
    assert (event.split, event.pairs) == ("holdout", (3, 4))
    assert event.outputs == measure(replica, PLACES[:1], [Block("test", 5, (3, 4))])[0].outputs


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_outputs_are_the_same_under_any_grouping_of_the_work(scale: float) -> None:
    model = model_of("llama", scale=scale)
    whole = measure(replica_of(model))
    expected = outputs(whole)
    if scale < 1:  # this model can hardly tell its outputs apart: grouping would show
        assert sum(e.near_ties for e in whole) > 10
    rng = random.Random(0)
    for _ in range(4):
        replica = replica_of(model, rows=rng.choice([1, 3, 7, 64]), capture_bytes=rng.choice([0, 5_000, 2**30]))
        work = [(i, b) for i in PLACES for b in BLOCKS]
        rng.shuffle(work)
        seen: Seen = {}
        while work:
            _, block = work[0]
            together = [i for i, b in work if b is block][: rng.randint(1, 5)]
            seen |= outputs(measure(replica, together, [block]))
            work = [(i, b) for i, b in work if not (b is block and i in together)]
        assert seen == expected


def test_near_ties_are_decided_again_by_the_oracle_and_counted() -> None:
    model = model_of("llama", scale=1e-3)  # all logits are within 1e-3
    replica = replica_of(model)
    counter = Counter(model)
    (event,) = measure(replica, PLACES[:1], [Block("test", 0, (0, 1))])
    assert event.near_ties == 2
    assert counter.since() >= 2 + 2 * 2  # the batch, then two plain passes each
    screened = replica.do(Task(1, "screen", (), BLOCKS))
    assert sum(e.near_ties for e in screened) == 48
    assert counter.since() > 1.5 * 48  # all but the few that the check at the start ran: in a batch, then by themselves


def test_each_distinct_input_is_run_without_intervention_once() -> None:
    model = model_of("llama")
    replica = replica_of(model, PAIRS + tuple(random_pairs(0, 48)[24:]))
    counter = Counter(model)
    blocks = (*BLOCKS, *BLOCKS)
    inputs = {ids for e in replica.opened.encoded[:24] for ids in (e.base, *e.sources.values())}
    screened = replica.do(Task(1, "screen", (), blocks))
    assert sum(e.near_ties for e in screened) == 0
    assert counter.since() <= len(inputs)  # some were run by the check at the start
    replica.do(Task(2, "screen", (), blocks))
    assert counter.since() == 0
    events = measure(replica)
    assert counter.since() == len(PLACES) * 24 + 2 * sum(e.near_ties for e in events)


def test_a_cache_that_is_too_small_costs_time_and_changes_nothing() -> None:
    model = model_of("llama")
    big, small = replica_of(model), replica_of(model, capture_bytes=0)
    assert outputs(measure(big)) == outputs(measure(small))
    assert small._captures._bytes == 0
    assert not small._captures._residuals
    middling = replica_of(model, capture_bytes=9_000)
    measure(middling)
    assert 0 < middling._captures._bytes <= 9_000
    assert middling._captures._bytes == sum(r.nbytes for r in middling._captures._residuals.values())


def test_an_intervention_that_cannot_be_done_leaves_the_others() -> None:
    replica = replica_of(model_of("llama"))
    wrong = [residual((0, "here"), component="mlp_output"), residual((99, "here"))]
    events = measure(replica, [PLACES[0], wrong[0], PLACES[1], wrong[1]], attempt=1)
    failed = [e for e in events if isinstance(e, Failed)]
    assert [(e.intervention, e.error_type, e.block) for e in failed] == [
        (wrong[0].id, "NotYetError", 0),
        (wrong[1].id, "ModelError", 0),
    ]
    assert (failed[0].worker, failed[0].node, failed[0].attempt) == ("worker-1", "node-1", 1)
    assert failed[0].group == (wrong[0].id,)
    assert failed[0].message in failed[0].traceback
    assert "Traceback" in failed[0].traceback
    rest = [e for e in events if e not in failed]
    assert outputs(rest) == outputs(measure(replica, PLACES[:2]))


def poisoned_pairs():
    """Sources hold w17 at "here", after "first"; bases hold it nowhere."""
    from raysearch.causal import ONE_SOURCE, Pair
    from tests.engine.worlds import words_input

    rng = random.Random(5)
    pairs = []
    for index in range(8):
        base, source = ([rng.choice(WORDS[:17]) for _ in range(5)] for _ in range(2))
        source[3] = "w17"
        answers = {"base": " w1", ONE_SOURCE: " w2"}
        pairs.append(
            Pair(index, words_input(base, 2), {ONE_SOURCE: words_input(source, 3)}, answers, {"x": " w3"}, "test")
        )
    return tuple(pairs)


def poison(model: PreTrainedModel, value: float) -> int:
    token = word_tokenizer().convert_tokens_to_ids("▁w17")
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = value
    return token


FINE, POISONED = residual((1, "first")), residual((1, "here"))


def test_numbers_that_are_not_finite_fail_the_intervention_that_made_them() -> None:
    model = model_of("llama")
    replica = replica_of(model, poisoned_pairs(), capture_bytes=0)
    poison(model, 1e4)

    def break_the_huge(module, inputs, output):
        huge = output.abs().amax(dim=(1, 2), keepdim=True) > 5e3
        return torch.where(huge, float("nan"), output)

    model.model.layers[2].register_forward_hook(break_the_huge)
    events = measure(replica, [FINE, POISONED], [Block("test", 4, tuple(range(8)))])
    assert isinstance(events[0], Measured)
    assert isinstance(events[1], Failed)
    assert (events[1].intervention, events[1].block, events[1].error_type) == (POISONED.id, 4, "NonFiniteLogitsError")
    assert f"intervention {POISONED.id} on pair 0: the logits are not finite" in events[1].message


def test_a_batch_that_raises_is_run_again_by_intervention_to_find_the_one_to_blame() -> None:
    model = model_of("llama")
    replica = replica_of(model, poisoned_pairs(), capture_bytes=0)
    token, run = poison(model, 1e4), []
    model.get_input_embeddings().register_forward_hook(lambda m, i, o: run.append(i[0]))

    def raise_for_the_intervened(module, inputs, output) -> None:
        if output.abs().max() > 5e3 and not (run[-1] == token).any():
            raise RuntimeError("CUDA out of memory, or so")

    model.model.layers[2].register_forward_hook(raise_for_the_intervened)
    fine = (FINE, residual((0, "first")))
    events = measure(replica, [fine[0], POISONED, fine[1]], [Block("test", 0, tuple(range(8)))])
    assert [type(e) for e in events] == [Measured, Failed, Measured]
    assert (events[1].intervention, events[1].error_type) == (POISONED.id, "RuntimeError")
    assert "raise_for_the_intervened" in events[1].traceback
    assert all(not layer._forward_hooks for layer in model.model.layers[:2])


def test_a_model_of_broken_weights_fails_whatever_is_asked_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = model_of("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    replica = replica_of(model)
    assert replica.opened.facts.path == "plain"
    events = measure(replica, PLACES[:2])
    assert [e.error_type for e in events] == ["NonFiniteLogitsError"] * 2
    (event,) = replica.do(Task(1, "screen", (), BLOCKS))
    assert isinstance(event, Failed)
    assert (event.intervention, event.error_type) == (None, "NonFiniteLogitsError")
    assert "pair 0, base, without intervention" in event.message


class Careless(GPT2LMHeadModel):
    """A model that counts padding as text: batched rows are not what they seem."""

    def forward(self, input_ids, attention_mask=None, use_cache=None):  # type: ignore[override]
        return super().forward(input_ids, attention_mask=attention_mask, use_cache=use_cache)


def test_a_model_whose_batched_rows_are_wrong_is_run_plainly_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = model_of("gpt2")
    careless = Careless(right.config).eval().requires_grad_(False)
    careless.load_state_dict(right.state_dict())
    with caplog.at_level(logging.WARNING):
        replica = replica_of(careless)
        seen = outputs(measure(replica, PLACES))
    assert replica.opened.facts.path == "plain"
    (warning,) = [r for r in caplog.records if r.name.startswith("raysearch")]
    assert "Careless: batched rows are not the same as one at a time (logits differ by up to" in warning.getMessage()
    assert seen == outputs(measure(replica_of(right), PLACES))
    assert (
        replica.do(Task(1, "screen", (), BLOCKS))[0].base == replica_of(right).do(Task(1, "screen", (), BLOCKS))[0].base
    )


def test_a_model_that_takes_no_mask_is_run_plainly() -> None:
    class Maskless(GPT2LMHeadModel):
        def forward(self, input_ids):  # type: ignore[override]
            return super().forward(input_ids, use_cache=False)

    right = model_of("gpt2")
    maskless = Maskless(right.config).eval().requires_grad_(False)
    maskless.load_state_dict(right.state_dict())
    replica = replica_of(maskless)
    assert replica.opened.facts.path == "plain"
    assert outputs(measure(replica)) == outputs(measure(replica_of(right)))


def test_plain_and_batched_replicas_agree_also_on_near_ties() -> None:
    model = model_of("llama", scale=0.1)
    ours, plain = measure(replica_of(model)), measure(replica_of(model, plain=True))
    assert outputs(ours) == outputs(plain)
    assert sum(e.near_ties for e in ours) == sum(e.near_ties for e in plain) > 10


def test_several_sources_are_screened_but_not_yet_interchanged() -> None:
    from raysearch.causal import Pair

    one = PAIRS[0]
    sources = {"a": one.base, "b": PAIRS[1].base}
    pair = Pair(0, one.base, sources, dict.fromkeys(("base", *sources), " w1"), {"x": " w2"}, "test")
    replica = Replica(loaded(model_of("llama")), [pair], ["first"], ["x"], "w")
    block = Block("test", 0, (0,))
    (screened,) = replica.do(Task(1, "screen", (), (block,)))
    assert set(screened.sources) == {"a", "b"}
    (failed,) = measure(replica, PLACES[:1], [block])
    assert (failed.error_type, failed.message) == ("NotYetError", "pair 0: has 2 sources; only one is supported yet")


def test_a_pair_that_is_too_long_for_the_model_is_refused() -> None:
    with pytest.raises(ModelError, match="pair 0: has 40 tokens; the model takes at most 32"):
        replica_of(model_of("gpt2"), random_pairs(0, 1, shortest=40, longest=40))


def test_what_a_replica_says_crosses_processes() -> None:
    replica = replica_of(model_of("llama"))
    events = measure(replica, [PLACES[0], Intervention(())])
    for value in (replica.opened, *events):
        assert pickle.loads(pickle.dumps(value)) == value


def test_facts_say_what_the_model_is() -> None:
    facts = replica_of(model_of("llama")).opened.facts
    assert (facts.layers, facts.width, facts.heads) == (4, 32, 4)
    assert (facts.dtype, facts.device, facts.path, facts.digest) == (
        "float32",
        "cpu",
        "batched",
        "digest of a random model",
    )


def test_the_tolerance_is_tighter_where_numbers_are_finer() -> None:
    assert NEAR_TIE["float32"] < NEAR_TIE["float16"] < NEAR_TIE["bfloat16"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_coarser_numbers_work_and_count_their_near_ties(dtype: str) -> None:
    from raysearch.engine.load import Loaded

    model = model_of("llama").to(getattr(torch, dtype))
    replica = Replica(Loaded(model, word_tokenizer(), "d", dtype), PAIRS, POSITIONS, ["x"], "w")
    events = measure(replica)
    assert all(isinstance(e, Measured) for e in events)
    assert sum(e.near_ties for e in events) > 0
