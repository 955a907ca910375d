"""A replica: tasks in, events out; the same outputs however the work is grouped, and failures that
spare the others."""

import logging
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel

from raysearch import Pair
from raysearch.causal import ONE_SOURCE
from raysearch.cluster.replica_spec import check_answers
from raysearch.core.events import Block, Event, Failed, Ids, Measured, Screened, Task
from raysearch.core.hypothesis import Intervention
from raysearch.core.lease import Lease, LeasedTest
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.predict import NEAR_TIE, predict
from raysearch.engine.networks.blocks import layers_of
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.rows import Row
from raysearch.engine.replica import Replica
from raysearch.errors import ModelError
from tests.engine.worlds import (
    CONFIGS,
    POSITIONS,
    REPLAYED,
    VOCAB,
    WORDS,
    blocks_of,
    digest_of,
    gemma3_config,
    loaded,
    model_from,
    model_of,
    random_pairs,
    residual,
    word_tokenizer,
    words_input,
    world_of,
)

PAIRS = random_pairs(0, 24)
BLOCKS = blocks_of(PAIRS, 8)
PLACES = tuple(
    residual((layer, position)) for layer in (0, 1, 2) for position in (*POSITIONS, "last")
)

Seen = dict[tuple[str, int], tuple[Ids, ...]]


def replica_of(model: PreTrainedModel, pairs=PAIRS, **settings) -> Replica:
    return Replica(
        loaded(model),
        pairs,
        (*POSITIONS, "last"),
        ["x"],
        "worker-1",
        "node-1",
        RunnerSettings(**settings),
    )


def measure(replica: Replica, interventions=PLACES, blocks=BLOCKS, **task) -> list[Event]:
    return replica.do(
        Task(
            task.pop("id", 1),
            task.pop("kind", "measure"),
            tuple(interventions),
            tuple(blocks),
            **task,
        )
    )


def outputs(events: list[Event]) -> Seen:
    assert all(isinstance(e, Measured) for e in events), events
    return {(e.intervention, e.block): e.outputs for e in events}


def by_oracle(replica: Replica, model: PreTrainedModel) -> Seen:
    pairs = {e.index: e for e in replica.opened.encoded}
    found: Seen = {}
    for intervention in PLACES:
        for block in BLOCKS:
            rows = [build_row(pairs[p], intervention, world_of(model).taps) for p in block.pairs]
            found[intervention.id, block.index] = tuple(
                (predict(world_of(model).oracle(r)[None])[0].id,) for r in rows
            )
    return found


class Counter:
    """Counts what a model runs, in rows of a block (a row that is run whole: as many as there are
    layers)."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.rows = 0
        for block in layers_of(model):
            block.register_forward_hook(self._count)

    def _count(self, module, inputs, output) -> None:
        self.rows += len(output)

    def since(self) -> int:
        rows, self.rows = self.rows, 0
        return rows


@pytest.mark.slow_unless(family=["gemma2"])
@pytest.mark.parametrize("family", CONFIGS)
def test_measured_outputs_are_the_oracles(family: str) -> None:
    model = model_of(family)
    replica = replica_of(model)
    assert replica.opened.facts.path == ("replay" if family in REPLAYED else "batched")
    places = [i for i in PLACES if i.units[0].site.layer < len(layers_of(model))]
    expected = by_oracle(replica, model) if len(places) == len(PLACES) else None
    seen = outputs(measure(replica, places))
    if expected is None:
        pairs = replica.opened.encoded
        expected = {
            (i.id, b.index): tuple(
                (
                    int(
                        world_of(model)
                        .oracle(build_row(pairs[p], i, world_of(model).taps))
                        .argmax()
                    ),
                )
                for p in b.pairs
            )
            for i in places
            for b in BLOCKS
        }
    assert seen == expected
    assert len({o for block in seen.values() for o in block}) > 3  # else nothing was tested


@dataclass(frozen=True)
class _EndsAfter:
    """A rule that ends a test after so many pairs."""

    pairs: int

    def ends(self, n: int, matches: int) -> bool:
        return n >= self.pairs


def test_a_leased_task_runs_what_it_does_without_one_up_to_where_it_stops() -> None:
    replica = replica_of(model_of("gpt2"))
    places = PLACES[:3]
    plain = outputs(measure(replica, places))
    tests = tuple((LeasedTest("x", 0, 0, _EndsAfter(n)),) for n in (1, 9, 10**6))
    lease = Lease(tests, unfiltered=True, step=3 * 8, rows=10**6, seconds=1e9)
    task = Task(1, "measure", places, BLOCKS, lease=lease)
    events = replica.do(task)
    check_answers(task, events)
    seen = outputs(events)
    assert len(BLOCKS) > 2
    wanted = zip(places, (BLOCKS[:1], BLOCKS[:2], BLOCKS), strict=True)
    assert set(seen) == {(i.key, b.index) for i, blocks in wanted for b in blocks}
    assert seen.items() <= plain.items()
    stopped = {(e.intervention, e.block) for e in events if e.stopped}
    assert stopped == {(places[0].key, 0), (places[1].key, 1)}


def test_screening_gives_the_models_own_outputs_for_bases_and_sources() -> None:
    model = model_of("llama")
    replica = replica_of(model)
    events = replica.do(Task(7, "screen", (), BLOCKS, attempt=2))
    assert [(e.task, e.split, e.block, e.pairs) for e in events] == [
        (7, "test", b.index, b.pairs) for b in BLOCKS
    ]
    for event in events:
        assert isinstance(event, Screened)
        assert (event.worker, event.device, event.attempt) == ("worker-1", "cpu", 2)
        for at, p in enumerate(event.pairs):
            pair = replica.opened.encoded[p]
            assert event.base[at] == (int(world_of(model).plain(pair.base).argmax()),)
            assert event.sources["source"][at] == (
                int(world_of(model).plain(pair.sources["source"]).argmax()),
            )


def test_events_say_which_task_attempt_worker_and_how_long() -> None:
    events = measure(replica_of(model_of("llama")), id=9, attempt=3)
    assert [(e.intervention, e.block) for e in events] == [
        (i.id, b.index) for i in PLACES for b in BLOCKS
    ]
    for e in events:
        assert (e.task, e.attempt, e.worker, e.device, e.rows) == (9, 3, "worker-1", "cpu", 8)
        assert e.seconds > 0


def test_an_estimate_is_measured_like_any_other() -> None:
    replica = replica_of(model_of("llama"))
    holdout = [Block("holdout", 0, (3, 4))]
    (event,) = measure(replica, PLACES[:1], holdout, kind="estimate")
    assert (event.split, event.pairs) == ("holdout", (3, 4))
    assert event.outputs == measure(replica, PLACES[:1], [Block("test", 5, (3, 4))])[0].outputs


@pytest.mark.slow_unless(scale=[0.1])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_outputs_are_the_same_under_any_grouping_of_the_work(scale: float) -> None:
    model = model_of("llama", scale=scale)
    whole = measure(replica_of(model))
    expected = outputs(whole)
    if scale < 1:  # this model can hardly tell its outputs apart: grouping would show
        assert sum(e.near_ties for e in whole) > 10
    rng = random.Random(0)
    for _ in range(2):
        replica = replica_of(
            model, rows=rng.choice([1, 3, 7, 64]), capture_bytes=rng.choice([0, 5_000, 2**30])
        )
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
    counter, captures = Counter(model), replica._runner.cache
    pairs = replica.opened.encoded[:2]
    bases, sources = {Row(e.base) for e in pairs}, {Row(e.sources["source"]) for e in pairs}
    rerun = bases - set(captures._runs)
    shallow = sources - set(captures._runs) - bases
    undecided = rerun - set(captures._predictions)
    (event,) = measure(replica, PLACES[:1], [Block("test", 0, (0, 1))])
    assert event.near_ties == 2
    assert all(e.base[0] != e.sources["source"][0] for e in pairs)  # neither is the identity
    # Four layers. The bases' runs, some of them decided again; the sources' first block; rows from
    # layer 1 on; then two plain passes for each row.
    runs = 4 * len(rerun) + 4 * len(undecided) + len(shallow)
    assert counter.since() == runs + 2 * 3 + 2 * 2 * 4
    inputs = {Row(ids) for e in replica.opened.encoded for ids in (e.base, *e.sources.values())}
    undecided, owed = (
        inputs - set(captures._predictions) - captures._near_ties,
        captures._near_ties - set(captures._predictions),
    )
    screened = replica.do(Task(1, "screen", (), BLOCKS))
    assert sum(e.near_ties for e in screened) == 48
    assert counter.since() == 2 * 4 * len(undecided) + 4 * len(
        owed & inputs
    )  # in a batch, then by themselves


def test_each_distinct_input_is_run_without_intervention_once() -> None:
    model = model_of("llama")
    replica = replica_of(model, PAIRS + tuple(random_pairs(0, 48)[24:]))
    counter = Counter(model)
    blocks = (*BLOCKS, *BLOCKS)
    inputs = {
        Row(ids) for e in replica.opened.encoded[:24] for ids in (e.base, *e.sources.values())
    }
    new = inputs - set(
        replica._runner.cache._predictions
    )  # some were run by the check at the start
    assert 24 < len(new) < len(inputs)
    screened = replica.do(Task(1, "screen", (), blocks))
    assert sum(e.near_ties for e in screened) == 0
    assert counter.since() == 4 * len(new)
    replica.do(Task(2, "screen", (), blocks))
    assert counter.since() == 0
    assert sum(e.near_ties for e in measure(replica)) == 0
    replay = replica._runner.executor
    rows = {
        build_row(e, i, replica._runner.hook_points)
        for e in replica.opened.encoded[:24]
        for i in PLACES
    }
    assert len(rows) < len(PLACES) * 24  # equal ones are run once
    free = {row for row in rows if replay.is_free(row)}
    assert free  # these cost nothing
    assert counter.since() == sum(4 - 1 - row.patches[0].point.layer for row in rows - free)


@pytest.mark.slow
def test_a_cache_that_is_too_small_costs_time_and_changes_nothing() -> None:
    model = model_of("llama")
    big, small = replica_of(model), replica_of(model, capture_bytes=0)
    counter = Counter(model)
    seen, cost = outputs(measure(big)), counter.since()
    assert outputs(measure(small)) == seen
    assert counter.since() > cost
    assert small._runner.cache._bytes == 0
    assert not small._runner.cache._runs
    middling = replica_of(model, capture_bytes=30_000)
    assert outputs(measure(middling)) == seen
    assert 0 < middling._runner.cache._bytes <= 30_000
    assert len(middling._runner.cache._runs) > 1
    batches = {run.batch for run in middling._runner.cache._runs.values()}
    kept = [
        t for b in batches for t in (*b.activations.values(), b.keys, b.values) if t is not None
    ]
    assert (
        middling._runner.cache._bytes
        == sum(t.nbytes for t in kept)
        == sum(t.untyped_storage().nbytes() for t in kept)
    )


def test_an_intervention_that_cannot_be_done_leaves_the_others() -> None:
    replica = replica_of(model_of("llama"))
    wrong = [residual((0, "here"), component="nothing"), residual((99, "here"))]
    events = measure(replica, [PLACES[0], wrong[0], PLACES[1], wrong[1]], attempt=1)
    failed = [e for e in events if isinstance(e, Failed)]
    assert [(e.intervention, e.error_type, e.block) for e in failed] == [
        (wrong[0].id, "ModelError", 0),
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
    from raysearch import Pair
    from raysearch.causal import ONE_SOURCE
    from tests.engine.worlds import words_input

    rng = random.Random(5)
    pairs = []
    for index in range(8):
        base, source = ([rng.choice(WORDS[:17]) for _ in range(5)] for _ in range(2))
        source[3] = "w17"
        answers = {"base": " w1", ONE_SOURCE: " w2"}
        pairs.append(
            Pair(
                index,
                words_input(base, 2),
                {ONE_SOURCE: words_input(source, 3)},
                answers,
                {"x": " w3"},
                "test",
            )
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
    assert (events[1].intervention, events[1].block, events[1].error_type) == (
        POISONED.id,
        4,
        "NonFiniteLogitsError",
    )
    assert f"intervention {POISONED.id} on pair 0: the logits are not finite" in events[1].message


def raise_for_the_intervened(model: PreTrainedModel) -> None:
    """Breaks layer 2 where it gets something huge that layer 1, left alone, did not put out just
    before."""
    before = [0.0]
    model.model.layers[1].register_forward_hook(lambda m, i, o: before.append(float(o.abs().max())))

    def out_of_memory(module, inputs, output) -> None:
        last, before[:] = before[-1], [0.0]
        if output.abs().max() > 5e3 > last:
            raise RuntimeError("CUDA out of memory, or so")

    model.model.layers[2].register_forward_hook(out_of_memory)


@pytest.mark.parametrize("capture_bytes", [0, 2**30])
def test_a_batch_that_raises_is_run_again_by_intervention_to_find_the_one_to_blame(
    capture_bytes: int,
) -> None:
    model = model_of("llama")
    replica = replica_of(model, poisoned_pairs(), capture_bytes=capture_bytes)
    fine, poisoned = (FINE, residual((0, "first"))), residual((1, "first"), (1, "here"))
    together = (fine[0], poisoned, fine[1])
    rows = [
        build_row(e, i, replica._runner.hook_points)
        for e in replica.opened.encoded
        for i in together
    ]
    if capture_bytes:  # without room for their runs, each row travels alone
        assert len(list(replica._runner.executor.batches(rows))) == 1
    poison(model, 1e4)
    replica._runner.cache._runs.clear()
    expected = outputs(measure(replica, fine, [Block("test", 0, tuple(range(8)))]))
    measure(replica, together, [Block("test", 0, tuple(range(8)))])  # captures its sources
    raise_for_the_intervened(model)
    events = measure(replica, together, [Block("test", 0, tuple(range(8)))])
    assert [type(e) for e in events] == [Measured, Failed, Measured]
    assert (events[1].intervention, events[1].error_type) == (poisoned.id, "RuntimeError")
    assert "out_of_memory" in events[1].traceback
    assert outputs([events[0], events[2]]) == expected
    assert [len(layer._forward_hooks) for layer in model.model.layers] == [0, 1, 1, 0]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_intervention_that_shares_rows_with_one_to_blame_is_measured_all_the_same(
    order: tuple[int, int],
) -> None:
    from raysearch import Pair
    from raysearch.causal import ONE_SOURCE
    from tests.engine.worlds import words_input

    def pair(index: int, base: str, source: str, here: int) -> Pair:
        inputs = words_input(base.split(), here), words_input(source.split(), here)
        return Pair(
            index,
            inputs[0],
            {ONE_SOURCE: inputs[1]},
            {"base": " w1", ONE_SOURCE: " w2"},
            {"x": " w3"},
            "test",
        )

    # On pair 0 "first" and "here" are one token: two interventions share a row. On pair 1 only
    # "here" is the poison.
    pairs = (pair(0, "w1 w2 w3", "w4 w5 w6", 0), pair(1, "w1 w2 w3 w4 w5", "w6 w17 w8 w9 w7", 1))
    model = model_of("llama")
    replica = replica_of(model, pairs)
    poison(model, 1e4)
    replica._runner.cache._runs.clear()
    block = [Block("test", 0, order)]
    expected = outputs(measure(replica, [FINE], block))
    raise_for_the_intervened(model)
    for together in ([POISONED, FINE], [FINE, POISONED]):
        events = {e.intervention: e for e in measure(replica, together, block)}
        assert isinstance(events[POISONED.id], Failed)
        assert outputs([events[FINE.id]]) == expected


def test_a_model_of_broken_weights_fails_whatever_is_asked_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = model_of("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    replica = replica_of(model)
    assert replica.opened.facts.path == "plain"
    assert len(caplog.records) == 1
    events = measure(replica, PLACES[:2])
    assert [e.error_type for e in events] == ["NonFiniteLogitsError"] * 2
    (event,) = replica.do(Task(1, "screen", (), BLOCKS))
    assert isinstance(event, Failed)
    assert (event.intervention, event.error_type) == (None, "NonFiniteLogitsError")
    assert "pair 0, base, without intervention" in event.message


class Crowded(GPT2LMHeadModel):
    """A model that centres its logits over the batch: batched rows are not what they seem."""

    def forward(self, input_ids, use_cache=None):  # type: ignore[override]
        out = super().forward(input_ids, use_cache=use_cache)
        out.logits = out.logits - out.logits.mean(0) * (len(out.logits) > 1)
        return out


def test_a_model_whose_batched_rows_are_wrong_is_run_plainly_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = model_of("gpt2")
    crowded = Crowded(right.config).eval().requires_grad_(False)
    crowded.load_state_dict(right.state_dict())
    with caplog.at_level(logging.WARNING):
        replica = replica_of(crowded)
        seen = outputs(measure(replica, PLACES))
    assert replica.opened.facts.path == "plain"
    (warning,) = [r for r in caplog.records if r.name.startswith("raysearch")]
    said = "Crowded (gpt2): the batched path is not the same as one run at a time (logits differ by up to"
    assert warning.getMessage().startswith(said)
    assert warning.getMessage().endswith("each row is run by itself, slowly")
    assert seen == outputs(measure(replica_of(right), PLACES))
    assert (
        replica.do(Task(1, "screen", (), BLOCKS))[0].base
        == replica_of(right).do(Task(1, "screen", (), BLOCKS))[0].base
    )


class FirstRow(GPT2LMHeadModel):
    """A model that reads the text of the first row for all rows of its batch."""

    def forward(self, input_ids, use_cache=None):  # type: ignore[override]
        out = super().forward(input_ids, use_cache=use_cache)
        read = self.transformer.wte(input_ids[:1]).mean(1)
        out.logits = out.logits + 5 * self.lm_head(read)[:, None]
        return out


def test_a_fault_that_only_another_text_of_the_same_length_shows_is_seen_though_lengths_are_many() -> (
    None
):
    right, rng = model_of("gpt2"), random.Random(0)
    wrong = FirstRow(right.config).eval().requires_grad_(False)
    wrong.load_state_dict(right.state_dict())
    pairs = []
    for index, length in enumerate([*range(3, 28)] * 2):
        base, source = (
            words_input([rng.choice(WORDS[:18]) for _ in range(words)], rng.randrange(words))
            for words in (length, 30 - length)
        )
        answers = [" " + rng.choice(WORDS[:18]) for _ in range(3)]
        sides = {"base": answers[0], ONE_SOURCE: answers[1]}
        pairs.append(Pair(index, base, {ONE_SOURCE: source}, sides, {"x": answers[2]}, "test"))
    blocks = blocks_of(pairs, len(pairs))
    replica = replica_of(wrong, pairs=pairs)
    assert replica.opened.facts.path == "plain"
    plain = replica_of(wrong, pairs=pairs, plain=True)
    some = PLACES[:2]
    assert outputs(measure(replica, some, blocks)) == outputs(measure(plain, some, blocks))


class Mindful(LlamaForCausalLM):
    """A model that minds, after its blocks, which tokens it was given: a replayed row has others,
    its batched form not."""

    def forward(  # type: ignore[override]
        self,
        input_ids,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        use_cache=None,
        logits_to_keep=0,
    ):
        out = super().forward(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
        )
        text = (
            torch.ones_like(input_ids)
            if attention_mask is None
            else attention_mask[:, -input_ids.shape[1] :]
        )
        out.logits = (
            out.logits
            + 9 * torch.outer((input_ids * text).sum(1), torch.arange(VOCAB)).sin()[:, None]
        )
        return out


def mindful() -> PreTrainedModel:
    model = Mindful(CONFIGS["llama"]()).eval().requires_grad_(False)
    model.load_state_dict(model_of("llama").state_dict())
    return model


@pytest.mark.slow_unless(name=["Mindful"])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (mindful, "Mindful"),
        (
            lambda: model_from(gemma3_config(3, use_bidirectional_attention=True)),
            "Gemma3ForCausalLM",
        ),
        # Its replay is right, as its last layer sees all tokens anyhow: only the identity is not
        # what it seems.
        (
            lambda: model_from(gemma3_config(2, use_bidirectional_attention=True)),
            "Gemma3ForCausalLM",
        ),
    ],
)
def test_a_model_on_which_only_replay_is_wrong_is_run_in_batches_and_that_is_said_once(
    make: Callable[[], PreTrainedModel], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = make()
    places = [i for i in PLACES if i.units[0].site.layer < len(layers_of(model))]
    with caplog.at_level(logging.WARNING):
        replica = replica_of(model)
        seen = outputs(measure(replica, places))
    assert replica.opened.facts.path == "batched"
    (warning,) = [r for r in caplog.records if r.name.startswith("raysearch")]
    assert warning.getMessage().startswith(f"{name} (")
    assert (
        "the replay path is not the same as one run at a time (logits differ by up to"
        in warning.getMessage()
    )
    assert warning.getMessage().endswith("rows are run whole, not from the patch on")
    assert not replica._runner.cache.keys  # nothing is kept for it
    assert seen == outputs(measure(replica_of(model, plain=True), places))


def test_a_model_that_takes_no_mask_is_run_in_batches() -> None:
    class Maskless(GPT2LMHeadModel):
        def forward(self, input_ids):  # type: ignore[override]
            return super().forward(input_ids, use_cache=False)

    right = model_of("gpt2")
    maskless = Maskless(right.config).eval().requires_grad_(False)
    maskless.load_state_dict(right.state_dict())
    replica = replica_of(maskless)
    assert replica.opened.facts.path == "batched"
    assert outputs(measure(replica)) == outputs(measure(replica_of(right)))


def test_plain_and_replaying_replicas_agree_also_on_near_ties() -> None:
    model = model_of("llama", scale=0.1)
    ours, plain = measure(replica_of(model)), measure(replica_of(model, plain=True))
    assert outputs(ours) == outputs(plain)
    assert sum(e.near_ties for e in ours) == sum(e.near_ties for e in plain) > 10


def test_several_sources_are_screened_and_a_unit_must_say_from_which_it_takes() -> None:
    from raysearch import Pair

    one = PAIRS[0]
    sources = {"a": one.base, "b": PAIRS[1].base}
    pair = Pair(
        0, one.base, sources, dict.fromkeys(("base", *sources), " w1"), {"x": " w2"}, "test"
    )
    replica = Replica(loaded(model_of("llama")), [pair], ["first"], ["x"], "w")
    block = Block("test", 0, (0,))
    (screened,) = replica.do(Task(1, "screen", (), (block,)))
    assert set(screened.sources) == {"a", "b"}
    (failed,) = measure(replica, PLACES[:1], [block])
    assert failed.error_type == "PairsError"
    assert (
        failed.message
        == "pair 0: has 2 sources (a, b); a unit must say which it takes from (source)"
    )


def test_a_pair_that_is_too_long_for_the_model_is_refused() -> None:
    with pytest.raises(ModelError, match="pair 0: has 40 tokens; the model takes at most 32"):
        replica_of(model_of("gpt2"), random_pairs(0, 1, shortest=40, longest=40))


def test_what_a_replica_says_crosses_processes() -> None:
    replica = replica_of(model_of("llama"))
    events = measure(replica, [PLACES[0], Intervention(())])
    for value in (replica.opened, *events):
        assert pickle.loads(pickle.dumps(value)) == value


def test_facts_say_what_the_model_is() -> None:
    model = model_of("llama")
    facts = replica_of(model).opened.facts
    assert (facts.layers, facts.width, facts.heads) == (4, 32, 4)
    assert (facts.dtype, facts.device, facts.path, facts.digest) == (
        "float32",
        "cpu",
        "replay",
        digest_of(model),
    )


def test_the_tolerance_is_tighter_where_numbers_are_finer() -> None:
    assert NEAR_TIE["float32"] < NEAR_TIE["float16"] < NEAR_TIE["bfloat16"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_coarser_numbers_work_and_count_near_ties_where_batches_matter(dtype: str) -> None:
    from raysearch.engine.loading.loaded_model import LoadedModel

    model = model_of("llama").to(getattr(torch, dtype))
    replica = Replica(
        LoadedModel(model, word_tokenizer(), digest_of(model), dtype), PAIRS, POSITIONS, ["x"], "w"
    )
    events = measure(replica)
    assert all(isinstance(e, Measured) for e in events)
    assert (sum(e.near_ties for e in events) > 0) == (replica._runner.near_tie > 0)
