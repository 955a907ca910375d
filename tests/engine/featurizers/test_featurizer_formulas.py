"""Each featurizer against its formula, written here on its own."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysearch.core.featurizers import names
from raysearch.core.hypothesis import Subspace
from raysearch.engine.featurizers.boundless import Boundless, BoundlessRank
from raysearch.engine.featurizers.closed_form import MeanDifference
from raysearch.engine.featurizers.construction import (
    closed_form,
    from_bytes,
    make_untrained,
    to_bytes,
)
from raysearch.engine.featurizers.identity import Identity
from raysearch.engine.featurizers.linear_subspace import LinearSubspace, unevenness
from raysearch.engine.featurizers.mask import Mask
from raysearch.engine.featurizers.rotation import Rotation, orthonormal, random_directions
from raysearch.engine.featurizers.sae import Sae
from raysearch.engine.featurizers.sae_file import SaeFile
from tests.engine.featurizer_worlds import autoencoder, made, near, pair, seeded

seeds = st.integers(0, 10_000)


# ---- rotations


@settings(max_examples=25)
@given(width=st.integers(1, 24), seed=seeds, data=st.data())
def test_a_rotation_moves_nothing_outside_of_its_span_and_all_within(
    width: int, seed: int, data: st.DataObject
) -> None:
    features = data.draw(st.integers(1, width))
    rotation, (x, y) = Rotation(random_directions(width, features, seeded(seed))), pair(width, seed)
    with torch.no_grad():
        found, directions = rotation.interchange(x, y), rotation.directions
        outside = torch.eye(width) - directions @ directions.T
        assert near(found @ outside, x @ outside)
        assert near(found @ directions, y @ directions)
        if features == width:
            assert near(found, y)
        else:
            assert not near(found, y)


@given(width=st.integers(1, 12), seed=seeds)
def test_orthonormal_columns_are_left_as_they_are(width: int, seed: int) -> None:
    raw = torch.randn((width, width), generator=seeded(seed))
    directions = orthonormal(raw)
    assert near(orthonormal(directions), directions)
    assert near(Rotation(directions).directions.detach(), directions)
    assert bool(
        ((directions.T @ raw).diagonal() > 0).all()
    )  # each column points where the raw one does


def test_random_directions_are_uniform_and_drawn_from_the_generator() -> None:
    shares = torch.stack(
        [random_directions(8, 2, seeded(seed)).square().sum(1) for seed in range(400)]
    )
    assert near(shares.mean(0), torch.full((8,), 2 / 8), 0.04)  # k/d of any direction lies within
    assert torch.equal(random_directions(8, 2, seeded(3)), random_directions(8, 2, seeded(3)))
    assert not torch.allclose(
        random_directions(8, 2, seeded(3)), random_directions(8, 2, seeded(4))
    )


def test_coordinates_are_taken_out_of_the_rest_and_put_in_bit_for_bit() -> None:
    identity, (x, y) = make_untrained(Subspace(coordinates=(2, 0)), 4, seeded(0)), pair(4, 0)
    features, rest = identity(x)
    assert torch.equal(features, x[:, [2, 0]])
    assert torch.equal(rest, x * torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert torch.equal(
        identity.interchange(x, y), torch.stack([y[:, 0], x[:, 1], y[:, 2], x[:, 3]], dim=1)
    )


# ---- boundaries


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, value))))


@settings(max_examples=30)
@given(
    width=st.integers(2, 20), seed=seeds, boundary=st.floats(-0.5, 1.5), progress=st.floats(0, 1)
)
def test_boundless_is_the_formula_of_the_paper(
    width: int, seed: int, boundary: float, progress: float
) -> None:
    boundless = Boundless(random_directions(width, width, seeded(seed)), boundary)
    boundless.anneal(progress)
    temperature, edge = 50 + (0.1 - 50) * progress, min(max(boundary, 1e-3), 1.0) * width
    m = [sigmoid(i / temperature) * sigmoid((edge - i) / temperature) for i in range(width)]
    w, (x, y) = boundless.directions.detach(), pair(width, seed)
    wanted = x + ((y - x) @ w * torch.tensor(m)) @ w.T
    with torch.no_grad():
        assert near(boundless.mask(), torch.tensor(m), 1e-4)
        assert near(boundless.interchange(x, y), wanted, 1e-4)
        assert float(boundless.penalty()) == pytest.approx(boundary)
    assert boundless.found()["width"] == pytest.approx(edge, rel=1e-5)
    assert m[0] <= 0.5


def test_boundless_starts_at_half_its_width_falls_from_50_to_a_tenth_and_stays_soft() -> None:
    boundless = make_untrained(Subspace("boundless"), 6, seeded(0))
    assert isinstance(boundless, Boundless)
    assert (boundless.boundary.item(), boundless.temperature) == (0.5, 50.0)
    boundless.anneal(0.25)
    assert boundless.temperature == pytest.approx(50 - 49.9 / 4)
    boundless.harden()
    assert boundless.temperature == pytest.approx(0.1)
    m = boundless.mask().detach()
    assert float(m[0]) == pytest.approx(0.5)
    assert float(m[3]) == pytest.approx(0.5)  # at the boundary
    assert near(m[1:3], torch.ones(2), 1e-3)
    assert boundless.found() == {"width": 3.0}


def test_a_boundary_beyond_the_width_comes_back() -> None:
    boundless = Boundless(torch.eye(4), boundary=1.2)
    optimiser = torch.optim.SGD([boundless.boundary], lr=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        boundless.penalty().backward()
        optimiser.step()
    assert boundless.boundary.item() == pytest.approx(0.7)


@settings(max_examples=30)
@given(
    width=st.integers(3, 16),
    features=st.integers(1, 3),
    seed=seeds,
    share=st.floats(0, 1),
    progress=st.floats(0, 1),
)
def test_a_boundary_over_k_directions_is_the_formula_of_causalab(
    width: int, features: int, seed: int, share: float, progress: float
) -> None:
    directions = random_directions(width, features, seeded(seed))
    bounded, (x, y) = BoundlessRank(directions, share, weight=2.0), pair(width, seed)
    bounded.anneal(progress)
    temperature = 1 + (0.1 - 1) * progress
    m = torch.tensor([sigmoid((share * features - i) / temperature) for i in range(features)])
    with torch.no_grad():
        assert near(bounded.interchange(x, y), x + ((y - x) @ directions * m) @ directions.T, 1e-4)
        assert float(bounded.penalty()) == pytest.approx(2.0 * float(m.mean()), abs=1e-5)
    bounded.harden()
    kept = math.ceil(float(np.float32(share) * features))
    r = directions[:, :kept]
    with torch.no_grad():
        assert near(bounded.interchange(x, y), x + (y - x) @ r @ r.T)
    assert bounded.found() == {"width": kept}


def test_a_boundary_over_k_directions_starts_in_their_middle_and_is_put_back_after_a_step() -> None:
    bounded = make_untrained(Subspace("boundless_rank", 4), 8, seeded(0))
    assert isinstance(bounded, BoundlessRank)
    assert (bounded.boundary.item(), bounded.temperature, bounded.weight) == (0.5, 1.0, 1.0)
    assert bounded.directions.shape == (8, 4)
    for value, wanted in ((1.3, 1.0), (-0.2, 0.0)):
        torch.nn.init.constant_(bounded.boundary, value)
        bounded.anneal(1.0)
        assert (bounded.boundary.item(), bounded.temperature) == (wanted, pytest.approx(0.1))
    bounded.harden()
    x, y = pair(8, 0)
    assert torch.equal(bounded.interchange(x, y), x)
    assert bounded.found() == {"width": 0.0}
    assert bounded.collapsed


# ---- masks


def test_a_mask_mixes_softly_in_training_and_takes_all_or_nothing_in_evaluation() -> None:
    mask, (x, y) = Mask(Identity(4)), pair(4, 0)
    assert mask.weight == 1e-2
    assert near(mask.interchange(x, y).detach(), (x + y) / 2)  # θ = 0: one half
    mask.theta.data = torch.tensor([-2.0, 0.0, 0.5, 3.0])
    for progress, temperature in ((0.0, 1.0), (0.5, 0.505), (1.0, 0.01)):
        mask.anneal(progress)
        m = torch.tensor([sigmoid(theta / temperature) for theta in (-2.0, 0.0, 0.5, 3.0)])
        assert near(mask.interchange(x, y).detach(), (1 - m) * x + m * y)
        assert float(mask.penalty().detach()) == pytest.approx(
            1e-2 * float(m.mean()), rel=1e-4
        )  # the mean, not the sum
    mask.harden()
    wanted = x.clone()
    wanted[:, 2:] = y[:, 2:]  # 0 is not above 0
    assert torch.equal(mask.interchange(x, y), wanted)
    assert mask.found() == {"width": 2.0}


def test_heads_are_kept_or_left_whole() -> None:
    mask, (x, y) = (
        make_untrained(Subspace("mask", basis="heads"), 12, seeded(0), heads=3),
        pair(12, 0),
    )
    assert isinstance(mask, Mask)
    assert mask.theta.shape == (3,)
    mask.theta.data = torch.tensor([1.0, -1.0, 2.0])
    m = torch.tensor([sigmoid(t) for t in (1.0, -1.0, 2.0) for _ in range(4)])
    assert near(mask.interchange(x, y).detach(), (1 - m) * x + m * y)
    mask.harden()
    assert torch.equal(mask.interchange(x, y), torch.cat([y[:, :4], x[:, 4:8], y[:, 8:]], dim=1))
    assert mask.found() == {"width": 8.0, "groups": 2.0}


@pytest.mark.parametrize("basis", ["coordinates", "heads", "pca", "sae"])
@pytest.mark.parametrize(("theta", "width"), [(-1.0, 0), (0.0, 0), (1.0, None)])
def test_a_mask_that_keeps_nothing_or_everything_says_so(
    basis: str, theta: float, width: int | None
) -> None:
    mask = made("mask" if basis == "coordinates" else f"mask of {basis}", 8, 1)
    assert isinstance(mask, Mask)
    torch.nn.init.constant_(mask.theta, theta)
    mask.harden()
    assert mask.collapsed
    kept = len(mask.theta) if width is None else width
    assert mask.found() == (
        {"width": 4 * kept, "groups": kept} if basis == "heads" else {"width": kept}
    )
    read = from_bytes(to_bytes(mask))
    assert isinstance(read, Mask)
    assert read.collapsed
    mask.theta.data[0] = -theta or 1.0
    assert not mask.collapsed
    read = from_bytes(to_bytes(mask))
    assert isinstance(read, Mask)
    assert not read.collapsed


def test_a_mask_over_components_leaves_what_lies_outside_of_their_span() -> None:
    vectors, (x, y) = torch.randn((30, 6), generator=seeded(0)), pair(6, 0)
    mask = make_untrained(Subspace("mask", 3, basis="pca"), 6, seeded(0), activations=vectors)
    assert isinstance(mask, Mask)
    torch.nn.init.constant_(mask.theta, 1.0)
    mask.harden()
    assert near(mask.interchange(x, y), closed_form(Subspace("pca", 3), vectors).interchange(x, y))


def test_of_an_autoencoder_only_the_features_that_a_mask_keeps_are_saved() -> None:
    file = SaeFile(safetensors.torch.save(autoencoder(8, 500, seeded(0))))
    mask = make_untrained(Subspace("mask", basis="sae"), 8, seeded(0), file=file)
    assert isinstance(mask, Mask)
    torch.nn.init.constant_(mask.theta, -1.0)
    mask.theta.data[[3, 77]] = 1.0
    assert len(to_bytes(mask)) < len(file.weights) / 20


# ---- closed forms


@settings(max_examples=20)
@given(width=st.integers(2, 10), seed=seeds, data=st.data())
def test_pca_swaps_standardised_components_and_keeps_the_rest(
    width: int, seed: int, data: st.DataObject
) -> None:
    features = data.draw(st.integers(1, width))
    vectors = torch.randn((30, width), generator=seeded(seed)) * torch.linspace(0.1, 5, width) + 2
    given_, (x, y) = vectors.double().numpy(), pair(width, seed)
    mean, scale = given_.mean(0), given_.std(0)
    values, components = np.linalg.eigh(
        np.cov(((given_ - mean) / scale).T, bias=True).reshape(width, width)
    )
    c = components[:, np.argsort(-values)[:features]]
    u, v = (x.double().numpy() - mean) / scale, (y.double().numpy() - mean) / scale
    wanted = x.double().numpy() + ((v @ c @ c.T) - (u @ c @ c.T)) * scale
    pca = closed_form(Subspace("pca", features), vectors)
    assert near(pca.interchange(x, y), torch.from_numpy(wanted).float(), 1e-3)
    assert near(pca(vectors)[0].mean(0), torch.zeros(features), 1e-4)
    assert near(
        pca(vectors)[0].var(0, correction=0),
        torch.tensor(np.sort(values)[::-1][:features].copy()).float(),
        1e-4,
    )


def test_a_constant_coordinate_does_not_harm_pca() -> None:
    vectors, (x, y) = torch.randn((30, 4), generator=seeded(0)), pair(4, 0)
    vectors[:, 2] = 0.1
    found = closed_form(Subspace("pca", 3), vectors).interchange(x, y)
    assert near(found[:, [0, 1, 3]], y[:, [0, 1, 3]])
    assert torch.equal(found[:, 2], x[:, 2])


@settings(max_examples=20)
@given(width=st.integers(2, 10), seed=seeds, data=st.data())
def test_svd_is_not_centred(width: int, seed: int, data: st.DataObject) -> None:
    features = data.draw(st.integers(1, width))
    vectors, (x, y) = torch.randn((30, width), generator=seeded(seed)) + 2, pair(width, seed)
    values, directions = np.linalg.eigh((vectors.double().T @ vectors.double()).numpy())
    r = torch.from_numpy(directions[:, np.argsort(-values)[:features]]).float()
    assert near(
        closed_form(Subspace("svd", features), vectors).interchange(x, y),
        x + (y - x) @ r @ r.T,
        1e-3,
    )


def test_of_two_classes_the_mean_difference_is_the_line_between_them() -> None:
    vectors, (x, y) = torch.randn((40, 6), generator=seeded(0)), pair(6, 0)
    labels = ["yes" if i < 25 else "no" for i in range(40)]
    line = vectors[:25].mean(0) - vectors[25:].mean(0)
    line = line / line.norm()
    found = closed_form(Subspace("mean_difference"), vectors, labels)
    assert isinstance(found, MeanDifference)
    assert found.directions.shape == (6, 1)
    assert near(found.interchange(x, y), x + ((y - x) @ line)[:, None] * line)


def test_the_mean_difference_of_classes_spans_their_means_about_the_grand_mean() -> None:
    vectors = torch.randn((60, 8), generator=seeded(0))
    labels = [i % 4 for i in range(60)]
    found = closed_form(Subspace("mean_difference"), vectors, labels)
    assert isinstance(found, MeanDifference)
    assert found.directions.shape == (8, 3)
    assert unevenness(found.directions) <= 1e-5
    for one in range(4):
        apart = vectors[one::4].mean(0) - vectors.mean(0)
        assert near(apart @ found.directions @ found.directions.T, apart)
    largest = closed_form(Subspace("mean_difference", 1), vectors, labels)
    assert near(largest(vectors)[0].abs(), found(vectors)[0][:, :1].abs())


@pytest.mark.parametrize("name", names("closed_form"))
def test_directions_keep_their_sign_and_bits_and_none_is_made_up(name: str) -> None:
    vectors, labels = torch.randn((20, 5), generator=seeded(1)), [i % 3 for i in range(20)]
    one, other = (closed_form(Subspace(name), vectors, labels) for _ in range(2))
    assert to_bytes(one) == to_bytes(other)
    assert isinstance(one, LinearSubspace)
    largest = one.directions.gather(0, one.directions.abs().argmax(0, keepdim=True))
    assert bool((largest > 0).all())
    assert one.directions.shape[1] == {"pca": 5, "svd": 5, "mean_difference": 2}[name]
    few = closed_form(Subspace(name), vectors[:3], labels[:3])
    assert isinstance(few, LinearSubspace)
    assert few.directions.shape[1] == {"pca": 2, "svd": 3, "mean_difference": 2}[name]


# ---- sparse autoencoders


@pytest.mark.parametrize("jump", [False, True])
@pytest.mark.parametrize("chosen", [None, (0,), (7, 2, 4)])
def test_an_autoencoder_swaps_features_and_keeps_the_error_of_the_base(
    jump: bool, chosen: tuple[int, ...] | None
) -> None:
    weights, (x, y) = autoencoder(6, 9, seeded(2), jump), pair(6, 2)
    sae = make_untrained(
        Subspace("sae", coordinates=chosen),
        6,
        seeded(0),
        file=SaeFile(safetensors.torch.save(weights)),
    )

    def encode(vectors: Tensor) -> Tensor:
        before = vectors @ weights["W_enc"] + weights["b_enc"]
        return torch.where(before > (weights["threshold"] if jump else 0.0), before, 0.0)

    def decode(features: Tensor) -> Tensor:
        return features @ weights["W_dec"] + weights["b_dec"]

    swapped = encode(x)
    columns = list(range(9) if chosen is None else chosen)
    swapped[:, columns] = encode(y)[:, columns]
    assert near(sae.interchange(x, y), decode(swapped) + (x - decode(encode(x))), 1e-4)
    assert near(sae(x)[0], encode(x)[:, columns])


def _linear(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        "encoder.weight": weights["W_enc"].T, "encoder.bias": weights["b_enc"],
        "decoder.weight": weights["W_dec"].T, "decoder.bias": weights["b_dec"],
    }  # fmt: skip


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "as linear layers": _linear,
    "as linear layers, "
    "turned": lambda w: {n: t.T if t.ndim == 2 else t for n, t in _linear(w).items()},
    "turned": lambda w: w | {"W_enc": w["W_enc"].T, "W_dec": w["W_dec"].T},
    "decoder turned": lambda w: w | {"W_dec": w["W_dec"].T},
    "both": lambda w: {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "W_dec": w["W_dec"], "b_dec": w["b_dec"]},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layouts_of_a_file_are_one_autoencoder(layout: str, dtype: torch.dtype) -> None:
    weights, (x, y) = autoencoder(5, 8, seeded(0)), pair(5, 0)
    kept = {
        name: tensor.to(dtype).contiguous() for name, tensor in LAYOUTS[layout](weights).items()
    }
    one, other = (Sae.read(SaeFile(safetensors.torch.save(w)), 5) for w in (weights, kept))
    assert torch.equal(one.interchange(x, y), other.interchange(x, y))


def test_a_square_autoencoder_is_read_as_its_names_say() -> None:
    weights, (x, y) = autoencoder(5, 5, seeded(0)), pair(5, 0)
    linear = {name: tensor.contiguous() for name, tensor in _linear(weights).items()}
    one, other = (Sae.read(SaeFile(safetensors.torch.save(w)), 5) for w in (weights, linear))
    assert torch.equal(one.interchange(x, y), other.interchange(x, y))


def test_an_encoder_that_takes_the_vector_less_the_decoders_bias_says_so() -> None:
    weights, (x, _) = autoencoder(5, 8, seeded(0)), pair(5, 0)
    sae = Sae.read(SaeFile(safetensors.torch.save(weights, {"apply_b_dec_to_input": "true"})), 5)
    wanted = torch.relu((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"])
    assert near(sae.encode(x), wanted)
    assert not near(Sae.read(SaeFile(safetensors.torch.save(weights)), 5).encode(x), wanted)
