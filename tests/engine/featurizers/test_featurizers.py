"""What holds for every featurizer; how those that are trained train."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.core.featurizers import featurizers
from raysearch.core.hypothesis import Subspace
from raysearch.engine.featurizers.boundless import Boundless
from raysearch.engine.featurizers.construction import make_untrained
from raysearch.engine.featurizers.featurizer import TemperatureSchedule
from raysearch.engine.featurizers.identity import Identity
from raysearch.engine.featurizers.linear_subspace import LinearSubspace, unevenness
from raysearch.engine.featurizers.mask import Mask
from raysearch.engine.featurizers.rotation import Rotation, orthonormal, random_directions
from raysearch.engine.patching.operations import Featurized
from tests.engine.featurizer_worlds import ITEMS, LEARN, NAMED, made, near, pair, seeded

each = pytest.mark.parametrize("name", NAMED)
each_trained = pytest.mark.parametrize("name", LEARN)
widths = st.integers(2, 12).map(lambda half: 2 * half)
seeds = st.integers(0, 10_000)
hardened = st.booleans()


# ---- what holds for every one


@each
@settings(max_examples=15)
@given(width=widths, seed=seeds, hard=hardened)
def test_a_featurizer_has_an_exact_inverse(name: str, width: int, seed: int, hard: bool) -> None:
    featurizer, (x, y) = made(name, width, seed), pair(width, seed)
    if hard:
        featurizer.harden()
    with torch.no_grad():
        features, rest = featurizer(x)
        assert near(featurizer.inverse(features, rest), x, 1e-4)
        assert rest.shape == x.shape
        assert len(features) == ITEMS
        assert not torch.allclose(featurizer(y)[0], features)  # the features say something of x


@each
@settings(max_examples=15)
@given(width=widths, seed=seeds, hard=hardened)
def test_an_interchange_is_that_of_the_features_and_keeps_the_rest(
    name: str, width: int, seed: int, hard: bool
) -> None:
    """The definition, by way of features and rest: `mix` goes another way."""
    featurizer, (x, y) = made(name, width, seed), pair(width, seed)
    if hard:
        featurizer.harden()
    with torch.no_grad():
        (ours, rest), (theirs, _), m = featurizer(x), featurizer(y), featurizer.mask()
        mixed = theirs if m is None else (1 - m) * ours + m * theirs
        assert near(featurizer.interchange(x, y), featurizer.inverse(mixed, rest), 1e-4)
        if m is not None:
            assert m.shape == ours.shape[1:]
            assert float(m.min()) >= 0
            assert float(m.max()) <= 1


@each
@settings(max_examples=15)
@given(
    width=widths, seed=seeds, hard=hardened, dtype=st.sampled_from([torch.float32, torch.bfloat16])
)
def test_a_vector_interchanged_with_itself_changes_no_bit(
    name: str, width: int, seed: int, hard: bool, dtype: torch.dtype
) -> None:
    featurizer = made(name, width, seed)
    if hard:
        featurizer.harden()
    x = pair(width, seed)[0].to(dtype).view(ITEMS, 2, width // 2)  # units of two tokens
    with torch.no_grad():
        assert torch.equal(Featurized("", featurizer).forward(x, x.clone()), x)


@each
def test_a_unit_of_two_tokens_in_bfloat16_is_one_vector_in_float32_cast_back(name: str) -> None:
    featurizer, (x, y) = made(name, 12, 3), (vectors.bfloat16() for vectors in pair(12, 3))
    with torch.no_grad():
        found = Featurized("", featurizer).forward(x.view(ITEMS, 2, 6), y.view(ITEMS, 2, 6))
        assert torch.equal(
            found, featurizer.interchange(x.float(), y.float()).bfloat16().view(ITEMS, 2, 6)
        )
    assert not torch.equal(found.flatten(1), x)


def test_every_featurizer_is_tested_here() -> None:
    assert {subspace.featurizer for subspace in NAMED.values()} == set(featurizers())


# ---- training


@each_trained
def test_gradients_flow_to_every_parameter_and_each_has_its_group(name: str) -> None:
    featurizer, (x, y) = made(name, 8, 1), pair(8, 1)
    featurizer.anneal(0.0)
    (featurizer.interchange(x, y).square().sum() + featurizer.penalty()).backward()
    for parameter in featurizer.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) > 0
    groups = featurizer.parameter_groups()
    wanted = {
        "das": {"rotation"},
        "boundless": {"rotation", "boundary"},
        "boundless_rank": {"rotation", "boundary"},
    }
    assert set(groups) == wanted.get(name, {"mask"})
    grouped = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(grouped) == sorted(id(parameter) for parameter in featurizer.parameters())


@pytest.mark.parametrize("name", sorted(NAMED.keys() - LEARN.keys()))
def test_what_is_not_trained_has_no_parameters(name: str) -> None:
    featurizer = made(name, 8, 1)
    assert not list(featurizer.parameters())
    assert featurizer.parameter_groups() == {"rotation": []}
    assert float(featurizer.penalty()) == 0
    assert featurizer.found() == {}
    assert not featurizer.collapsed


@pytest.mark.parametrize("name", ["das", "boundless", "boundless_rank"])
def test_steps_of_adam_find_a_planted_subspace_and_keep_the_directions_orthonormal(
    name: str,
) -> None:
    width = 16
    planted = orthonormal(torch.randn((width, 3), generator=seeded(7)))
    x, y = pair(width, 0, items=64)
    wanted = x + (y - x) @ planted @ planted.T
    subspace = (
        Subspace("das", 3) if name == "das" else Subspace(name, None if name == "boundless" else 8)
    )
    featurizer = make_untrained(subspace, width, seeded(0))
    assert isinstance(featurizer, LinearSubspace)
    if isinstance(featurizer, Boundless):
        featurizer.cooling = TemperatureSchedule(2.0, 0.1)  # 50 is for widths of thousands
    rates = {"rotation": 0.03, "boundary": 0.03}
    groups = [
        {"params": group, "lr": rates[kind]}
        for kind, group in featurizer.parameter_groups().items()
    ]
    optimiser, losses, steps = torch.optim.Adam(groups), [], 150
    for step in range(steps):
        featurizer.anneal(step / (steps - 1))
        error = (featurizer.interchange(x, y) - wanted).square().mean()
        losses.append(float(error.detach()))
        optimiser.zero_grad()
        (error + 0.1 * featurizer.penalty()).backward()
        optimiser.step()
        assert unevenness(featurizer.directions.detach()) <= 1e-5
    featurizer.harden()
    assert unevenness(featurizer.directions) <= 1e-5
    final = (featurizer.interchange(x, y).detach() - wanted).square().mean()
    assert float(final) < 0.1 * losses[0]
    if name != "das":
        # The first feature of boundless is interchanged by half at most, so that it wants half a
        # one more.
        assert featurizer.found()["width"] == pytest.approx(
            3, abs=0.6 if name == "boundless" else 0
        )
    assert not featurizer.collapsed


def test_a_boundary_that_starts_too_hot_collapses_and_says_so() -> None:
    x, y = pair(16, 0, items=64)
    boundless = make_untrained(Subspace("boundless"), 16, seeded(0))
    optimiser = torch.optim.Adam(boundless.parameters(), lr=0.03)
    for step in range(60):
        boundless.anneal(step / 59)
        optimiser.zero_grad()
        ((boundless.interchange(x, y) - x).square().mean() + boundless.penalty()).backward()
        optimiser.step()
    assert boundless.collapsed
    assert boundless.found() == {"width": pytest.approx(0.016)}
    torch.nn.init.constant_(boundless.boundary, 0.95)
    assert boundless.collapsed, "within one of the whole width nothing is localised"
    torch.nn.init.constant_(boundless.boundary, 0.9)
    assert not boundless.collapsed


def test_a_mask_finds_the_planted_coordinates() -> None:
    x, y = pair(10, 0, items=64)
    wanted = x.clone()
    wanted[:, [1, 4, 7]] = y[:, [1, 4, 7]]
    mask = Mask(Identity(10), weight=0.5)
    optimiser = torch.optim.Adam(mask.parameters(), lr=0.05)
    for step in range(100):
        mask.anneal(step / 99)
        optimiser.zero_grad()
        ((mask.interchange(x, y) - wanted).square().mean() + mask.penalty()).backward()
        optimiser.step()
    mask.harden()
    assert torch.equal(mask.interchange(x, y), wanted)
    assert mask.found() == {"width": 3.0}
    assert not mask.collapsed


@each_trained
def test_training_goes_on_after_a_pause_to_validate(name: str) -> None:
    featurizer, (x, y) = made(name, 8, 1), pair(8, 1)
    featurizer.anneal(0.5)
    before = featurizer.interchange(x, y)
    featurizer.harden()
    paused = featurizer.interchange(x, y)
    if name != "das":
        assert not torch.allclose(paused, before)
    featurizer.anneal(0.5)
    after = featurizer.interchange(x, y)
    assert torch.equal(after, before)
    after.sum().backward()
    with torch.no_grad():
        for parameter in featurizer.parameters():
            assert parameter.grad is not None
            parameter += (
                torch.randn(parameter.shape, generator=seeded(2))
                if parameter.ndim == 2
                else -2 * parameter
            )
    featurizer.harden()
    assert not torch.allclose(featurizer.interchange(x, y), paused)


@settings(max_examples=20)
@given(seed=seeds, k=st.integers(1, 5), pairs=st.integers(1, 12))
def test_a_rotation_within_another_keeps_more_of_the_change_than_any_other_of_its_size(
    seed: int, k: int, pairs: int
) -> None:
    larger, changes = (
        Rotation(random_directions(12, 6, seeded(seed))),
        torch.randn(pairs, 12, generator=seeded(seed + 1)),
    )
    within = larger.within(changes, k).directions.detach()
    inside = changes @ larger.directions.detach()
    best = torch.linalg.svdvals(inside)[:k].square().sum()
    assert unevenness(within) <= 1e-5
    assert torch.allclose(larger.directions @ (larger.directions.T @ within), within, atol=1e-5)
    assert torch.allclose((changes @ within).square().sum(), best, rtol=1e-4)
