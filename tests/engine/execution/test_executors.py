"""The fast paths against the oracle, on whatever may be asked: any family, component, kind,
company, dtype."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.core.events import Ids
from raysearch.engine.execution.evaluate import Evaluator, RowRequest
from raysearch.engine.execution.executors import PlainExecutor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.predict import NEAR_TIE, predict
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import (
    Interchange,
    Operation,
    Zero,
)
from raysearch.engine.patching.rows import FeatureIndices, Patch, Row, Source, swap
from tests.engine.worlds import CONFIGS, VOCAB, World, logits_of, model_of, shared_world, world_of

ROUTED = ("mixtral", "qwen2_moe", "gpt_oss", "deepseek_v3")
"""Send each token to the experts that score highest: in coarse numbers a near-tie there may go
either way."""
INNER = {
    "bloom": ("attention_output", "mlp_output"),
    "mpt": ("mlp_output",),
    "opt": ("mlp_output",),
}
"""Components that are the output of a projection, not of a module that reads the residual: nothing
to skip."""


class Asker:
    """Random rows on a world; few texts, that share prefixes, so that companies, waves and
    identities come about."""

    def __init__(self, world: World, family: str, seed: int) -> None:
        self.world, self.family, self.rng = world, family, random.Random(seed)
        self.components = world.components()
        prefix = [self.rng.randrange(3, VOCAB) for _ in range(8)]
        lengths = [self.rng.randint(1, 9) for _ in range(2)]

        def text() -> Ids:
            length = self.rng.choice(lengths)
            shared = self.rng.randint(0, min(5, length))
            return tuple(
                prefix[:shared] + [self.rng.randrange(3, VOCAB) for _ in range(length - shared)]
            )

        self.texts = [text() for _ in range(5)]

    def row(self, serial: float = 0.2) -> Row:
        """With patches in up to three layers, whose sources may be intervened upon themselves."""
        rng, base = self.rng, self.rng.choice(self.texts)
        patches: list[Patch] = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            one = self.patch(base, serial)
            patches.append(one)
            if rng.random() < 0.2:  # another at the same place, in its turn
                patches.append(self.patch(base, serial, one.point))
        return Row(base, tuple(patches))

    def patch(self, base: Ids, serial: float, point: Point | None = None) -> Patch:
        rng = self.rng
        point = point or self.point()
        features = self.features(point)
        ours = tuple(rng.sample(range(len(base)), rng.randint(1, min(3, len(base)))))
        kind, count = self.kind()
        sources = [self.source(point, features, ours, serial) for _ in range(count)]
        return Patch(point, ours, tuple(sources), kind, features)

    def source(self, point: Point, features: FeatureIndices, ours: Ids, serial: float) -> Source:
        rng, given = self.rng, self.rng.choice(self.texts)
        same = rng.random() < 0.4  # the same tokens, where the source has them
        theirs = tuple(t if same and t < len(given) else rng.randrange(len(given)) for t in ours)
        run = Row(given, (self.patch(given, serial / 2),) if rng.random() < serial else ())
        layers = sorted(self.world.taps.of(point.component))
        lender = point if rng.random() < 0.6 else Point(rng.choice(layers), point.component)
        return Source(run, lender, theirs, features)

    def point(self) -> Point:
        component = self.rng.choice(self.components)
        return Point(self.rng.choice(sorted(self.world.taps.of(component))), component)

    def features(self, point: Point) -> FeatureIndices:
        """All, one head, some coordinates, or some of a head."""
        rng, tap = self.rng, self.world.taps.at(point)
        width = tap.width // max(tap.heads, 1)
        start = width * rng.randrange(tap.heads) if tap.heads else 0
        match rng.choice(("all", "head", "some")):
            case "all":
                return None
            case "head":
                return range(start, start + width)
            case _:
                return tuple(rng.sample(range(start, start + width), rng.randint(1, 4)))

    def kind(self) -> tuple[Operation, int]:
        """An operation, and how many sources it takes from."""
        return self.rng.choice(
            [*(5 * [(Interchange(), 1)]), *(3 * [(Interchange(), 2)]), *(2 * [(Zero(), 0)])]
        )


def asked(world: World, family: str, seed: int, count: int) -> list[Row]:
    asker = Asker(world, family, seed)
    return list(dict.fromkeys(asker.row() for _ in range(count)))


@settings(max_examples=20, deadline=None)
@given(
    family=st.sampled_from(sorted(CONFIGS)),
    seed=st.integers(0, 10**6),
    count=st.integers(1, 10),
    most=st.integers(1, 12),
    max_bytes=st.sampled_from([0, 20_000, 2**30]),
)
def test_whatever_is_asked_the_fast_paths_say_what_the_oracle_says(
    family: str, seed: int, count: int, most: int, max_bytes: int
) -> None:
    world = shared_world(family)
    rows = asked(world, family, seed, count)
    wanted = [world.oracle(row) for row in rows]
    for path in world.fast(most, max_bytes):
        for row, ours, theirs in zip(rows, logits_of(path, rows), wanted, strict=True):
            assert (ours - theirs).abs().max() <= 1e-4, (path.name, row)
            (our,), (their,) = predict(ours[None]), predict(theirs[None])
            assert our.id == their.id or their.gap < 2e-4


@settings(max_examples=8, deadline=None)
@given(family=st.sampled_from([f for f in CONFIGS if f not in ROUTED]), seed=st.integers(0, 10**6))
def test_in_bfloat16_they_say_it_too_but_for_near_ties(family: str, seed: int) -> None:
    world = shared_world(family, torch.bfloat16)
    rows = asked(world, family, seed, 6)
    wanted = [world.oracle(row) for row in rows]
    for path in world.fast():
        for row, ours, theirs in zip(rows, logits_of(path, rows), wanted, strict=True):
            (our,), (their,) = predict(ours[None]), predict(theirs[None])
            assert our.id == their.id or our.gap < NEAR_TIE["bfloat16"], (path.name, row)


def measured(world: World, rows: list[Row], most: int = 64) -> list[int]:
    """The outputs as a replica measures them."""
    tolerance, limit = NEAR_TIE["float32"], RowLimit(most)
    path = world.fast(most)[-1]
    captures = world.captures(most, tolerance=tolerance, keys=isinstance(path, ReplayExecutor))
    measurer = Evaluator(path, PlainExecutor(world.network, world.taps), captures, limit, tolerance)
    items = [RowRequest(f"i{at}", 0, 0, row) for at, row in enumerate(rows)]
    outcome = measurer.measure(items)
    assert not outcome.faults
    return [outcome.predictions[item][0].id for item in items]


@settings(max_examples=6, deadline=None)
@given(family=st.sampled_from(sorted(CONFIGS)), seed=st.integers(0, 10**6), most=st.integers(2, 12))
def test_a_row_is_decided_alone_as_in_company(family: str, seed: int, most: int) -> None:
    world = shared_world(family)
    rows = asked(world, family, seed, 10)
    together = measured(world, rows, most)
    assert together == [measured(world, [row])[0] for row in rows]
    backwards = measured(world, rows[::-1], 64)
    assert together == backwards[::-1]


@pytest.mark.slow
def test_a_row_is_decided_alone_as_in_company_also_where_all_outputs_are_near_ties() -> None:
    world = world_of(model_of("llama", scale=1e-3))
    rows = asked(world, "llama", 0, 40)
    assert sum(predict(world.oracle(row)[None])[0].gap < NEAR_TIE["float32"] for row in rows) > 5
    assert measured(world, rows) == [measured(world, [row])[0] for row in rows]


def test_positions_do_not_move_in_company() -> None:
    """Absolute positions (GPT-2, OPT), rotary ones, ALiBi (BLOOM, MPT): texts of one to nine
    tokens, alone and together."""
    for family in ("gpt2", "opt", "llama", "bloom", "mpt"):
        world, rng = shared_world(family), random.Random(family)
        rows = []
        for length in range(1, 10):
            base, source = (tuple(rng.randrange(3, VOCAB) for _ in range(length)) for _ in range(2))
            rows.append(swap(base, source, 1, (rng.randrange(length),)))
        alone = [world.oracle(row) for row in rows]
        for path in world.fast():
            for one, together in zip(alone, logits_of(path, rows), strict=True):
                assert torch.allclose(one, together, atol=1e-4), (family, path.name)


def test_patches_of_one_place_are_done_in_their_order() -> None:
    world, point = shared_world("llama"), Point(1, "residual")
    lend = Patch(point, (2,), (Source(Row((10, 11, 12, 13)), point, (1,)),))
    some = Patch(point, (2,), (Source(Row((9, 8, 7)), point, (2,), range(8)),), features=range(8))
    zero = Patch(point, (2,), kind=Zero())
    for patches in ((lend, some), (some, lend), (zero, lend), (zero, some), (lend, some, lend)):
        row = Row((5, 6, 7, 8, 9), patches)
        last = Row(row.base, patches[-1:])
        wanted = world.oracle(row)
        assert torch.equal(wanted, world.oracle(last)) == (patches[-1] is lend)
        for path in world.fast():
            assert torch.allclose(logits_of(path, [row])[0], wanted, atol=1e-4)
