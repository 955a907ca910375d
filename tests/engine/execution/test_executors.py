"""The fast paths against the oracle, on whatever may be asked: any family, component, kind,
company, dtype."""

import itertools
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.core.events import Ids
from raysearch.engine.execution.evaluate import Evaluator, RowRequest
from raysearch.engine.execution.executors import PlainExecutor, ReplayExecutor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.predict import NEAR_TIE, predict
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import (
    Add,
    Collect,
    Constant,
    Interchange,
    Mean,
    Noise,
    Operation,
    Resample,
    Skip,
    Subtract,
    Zero,
)
from raysearch.engine.patching.oracle import collect
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
        features, count = self.features(point)
        ours = tuple(rng.sample(range(len(base)), rng.randint(1, min(3, len(base)))))
        kind = self.kind(point, count)
        if kind.lent != "source":
            return Patch(point, ours, (), kind, features)
        sources = [
            self.source(point, features, ours, serial)
            for _ in range(2 if isinstance(kind, Mean) else 1)
        ]
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

    def features(self, point: Point) -> tuple[FeatureIndices, int]:
        """All, one head, some coordinates, or some of a head; and how many."""
        rng, tap = self.rng, self.world.taps.at(point)
        width = tap.width // max(tap.heads, 1)
        start = width * rng.randrange(tap.heads) if tap.heads else 0
        match rng.choice(("all", "head", "some")):
            case "all":
                return None, tap.width
            case "head":
                return range(start, start + width), width
            case _:
                chosen = rng.sample(range(start, start + width), rng.randint(1, 4))
                return tuple(chosen), len(chosen)

    def kind(self, point: Point, count: int) -> Operation:
        rng = self.rng
        vector = tuple(rng.gauss(0, 1) for _ in range(count))
        kinds: list[Operation] = [
            *(3 * [Interchange()]),
            Resample(),
            Mean(),
            Zero(),
            Add(0.5),
            Add(1.5, vector),
            Subtract(
                2.0
            ),  # once itself would leave rounding alone, which a norm blows up: see below
            Subtract(0.5, vector),
            Noise(0.3, rng.randrange(2)),
            Constant(vector),
        ]
        outputs = {"residual", "attention_output", "mlp_output"} - set(INNER.get(self.family, ()))
        return rng.choice([*kinds, Skip(), Skip()] if point.component in outputs else kinds)


def skips_what_was_written(row: Row) -> bool:
    """Whether a block is skipped after something else was written to its output: see the test below
    of this name."""
    written: set[Point] = set()
    for patch in row.patches:
        if isinstance(patch.kind, Skip) and patch.point in written:
            return True
        written.add(patch.point)
        if any(skips_what_was_written(source.run) for source in patch.sources):
            return True
    return False


def asked(world: World, family: str, seed: int, count: int) -> list[Row]:
    asker = Asker(world, family, seed)
    rows = dict.fromkeys(asker.row() for _ in range(count))
    return [row for row in rows if not skips_what_was_written(row)]


@settings(max_examples=120, deadline=None)
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


@settings(max_examples=30, deadline=None)
@given(family=st.sampled_from([f for f in CONFIGS if f not in ROUTED]), seed=st.integers(0, 10**6))
def test_in_bfloat16_they_say_it_within_half_of_a_near_tie(family: str, seed: int) -> None:
    world = shared_world(family, torch.bfloat16)
    rows = asked(world, family, seed, 6)
    for path in world.fast():
        for row, ours in zip(rows, logits_of(path, rows), strict=True):
            assert (ours - world.oracle(row)).abs().max() <= NEAR_TIE["bfloat16"] / 2, (
                path.name,
                row,
            )


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


@settings(max_examples=25, deadline=None)
@given(family=st.sampled_from(sorted(CONFIGS)), seed=st.integers(0, 10**6), most=st.integers(2, 12))
def test_a_row_is_decided_alone_as_in_company(family: str, seed: int, most: int) -> None:
    world = shared_world(family)
    rows = asked(world, family, seed, 10)
    together = measured(world, rows, most)
    assert together == [measured(world, [row])[0] for row in rows]
    backwards = measured(world, rows[::-1], 64)
    assert together == backwards[::-1]


def test_a_row_is_decided_alone_as_in_company_also_where_all_outputs_are_near_ties() -> None:
    world = world_of(model_of("llama", scale=1e-3))
    rows = asked(world, "llama", 0, 40)
    assert sum(predict(world.oracle(row)[None])[0].gap < NEAR_TIE["float32"] for row in rows) > 5
    assert measured(world, rows) == [measured(world, [row])[0] for row in rows]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_noise_is_the_same_in_any_company_and_other_for_another_seed_base_or_place(
    family: str,
) -> None:
    world, base, other = shared_world(family), (5, 6, 7, 8, 9), (10, 11, 12)

    def noisy(seed: int, given: Ids = base, token: int = 1, layer: int = 0) -> Row:
        return Row(given, (Patch(Point(layer, "residual"), (token,), kind=Noise(0.5, seed)),))

    def noise(row: Row) -> torch.Tensor:
        """What it adds, where it does."""
        read = replace(row.patches[0], kind=Collect())
        with_it, without = (
            collect(world.network, world.taps, Row(row.base, patches))[0]
            for patches in ((*row.patches, read), (read,))
        )
        return with_it - without

    rows = [noisy(0), noisy(1), noisy(0, other), noisy(0, token=2), noisy(0, layer=1)]
    for path in world.fast():
        alone = logits_of(path, rows[:1])[0]
        assert torch.allclose(logits_of(path, rows)[0], alone, atol=1e-4)
        assert torch.allclose(alone, world.oracle(rows[0]), atol=1e-4)
    for one, two in itertools.combinations(rows, 2):
        assert (noise(one) - noise(two)).abs().max() > 0.1


def test_positions_do_not_move_with_padding_or_company() -> None:
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
    add = Patch(point, (2,), kind=Add(vector=(1.0,) * 32))
    skip = Patch(point, (2,), kind=Skip())
    for patches in ((lend, add), (add, lend), (skip, lend), (skip, add), (lend, add, lend)):
        row = Row((5, 6, 7, 8, 9), patches)
        last = Row(row.base, patches[-1:])
        wanted = world.oracle(row)
        assert torch.equal(wanted, world.oracle(last)) == (patches[-1] is lend)
        for path in world.fast():
            assert torch.allclose(logits_of(path, [row])[0], wanted, atol=1e-4)


def test_a_block_that_is_skipped_after_something_was_written_to_it_is_skipped() -> None:
    world, point = shared_world("llama"), Point(1, "residual")
    lend = Patch(point, (2,), (Source(Row((10, 11, 12, 13)), point, (1,)),))
    row = Row((5, 6, 7, 8, 9), (lend, Patch(point, (2,), kind=Skip())))
    assert torch.equal(world.oracle(row), world.oracle(replace(row, patches=row.patches[1:])))
    assert torch.allclose(logits_of(world.replayed(), [row])[0], world.oracle(row), atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_activation_less_that_of_the_same_prefix_is_left_to_the_oracle(family: str) -> None:
    """Only rounding is left of it, which is other on each path: after a norm, logits differ by up
    to 2."""
    world, point, rng = shared_world(family), Point(0, "residual"), random.Random(0)
    for path in world.fast():
        oracle = PlainExecutor(world.network, world.taps)
        measurer = Evaluator(path, oracle, world.captures(), RowLimit(16), NEAR_TIE["float32"])
        items = []
        for i in range(20):
            base = tuple(rng.randrange(3, VOCAB) for _ in range(6))
            source = Source(Row(base[:2]), point, (0,))
            items.append(
                RowRequest("less", 0, i, Row(base, (Patch(point, (0,), (source,), Subtract()),)))
            )
        outcome = measurer.measure(items)
        assert not outcome.faults
        for item in items:
            (said,) = predict(world.oracle(item.row)[None])
            assert outcome.predictions[item] == (said,)
