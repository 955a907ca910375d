"""Learned interventions: what raysearch's featurizers and pyvene 0.1.8 make of the same rotation,
boundary and mask.

pyvene's W is copied into ours; random numbers are not matched.
"""

from collections.abc import Iterator

import pytest
import pyvene
import torch
from torch import Tensor

from raysearch.core.hypothesis import Subspace
from raysearch.engine.featurizers.boundless import Boundless
from raysearch.engine.featurizers.closed_form import Pca
from raysearch.engine.featurizers.featurizer import FeaturizerContext
from raysearch.engine.featurizers.identity import Identity
from raysearch.engine.featurizers.mask import Mask
from raysearch.engine.featurizers.rotation import Rotation

TOLERANCE = 1e-5
SIZES = [(6, 1), (16, 4), (48, 48)]
"""(width, features)."""

each_size = pytest.mark.parametrize(("width", "features"), SIZES)
each_progress = pytest.mark.parametrize("progress", [0.0, 0.6, 1.0])


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def pair(width: int) -> tuple[Tensor, Tensor]:
    return torch.randn(7, width), torch.randn(7, width)


def far(one: Tensor, other: Tensor, base: Tensor) -> float:
    assert float((other - base).detach().abs().max()) > 0.1  # the intervention does something
    return float((one - other).detach().abs().max())


@each_size
def test_a_rotation_of_which_k_coordinates_are_swapped_is_our_k_directions(
    width: int, features: int
) -> None:
    theirs = pyvene.RotatedSpaceIntervention(embed_dim=width)
    theirs.interchange_dim = torch.tensor(features)
    ours, (x, y) = Rotation(theirs.rotate_layer.weight[:, :features]), pair(width)
    assert far(ours.interchange(x, y), theirs(x, y), x) <= TOLERANCE


@each_size
def test_a_low_rank_rotation_is_that_of_pyvene(width: int, features: int) -> None:
    theirs = pyvene.LowRankRotatedSpaceIntervention(embed_dim=width, low_rank_dimension=features)
    ours, (x, y) = Rotation(theirs.rotate_layer.weight), pair(width)
    assert far(ours.interchange(x, y), theirs(x, y), x) <= TOLERANCE


@each_progress
@pytest.mark.parametrize("boundary", [-0.1, 0.3, 0.5, 1.4])
def test_boundless_is_that_of_pyvene_at_every_temperature(boundary: float, progress: float) -> None:
    theirs = pyvene.BoundlessRotatedSpaceIntervention(embed_dim=16)
    ours, (x, y) = Boundless(theirs.rotate_layer.weight, boundary), pair(16)
    ours.anneal(progress)
    theirs.set_temperature(torch.linspace(50.0, 0.1, 101)[round(100 * progress)])
    theirs.set_intervention_boundaries(boundary)
    found = ours.interchange(x, y)
    theirs_found = theirs(x, y)
    assert float((found - theirs_found).detach().abs().max()) <= TOLERANCE
    assert float((theirs_found - x).detach().abs().max()) > 0.1
    assert ours.penalty().item() == pytest.approx(theirs.get_boundary_parameters().sum().item())
    if progress == 1.0:
        ours.harden()
        assert far(ours.interchange(x, y), theirs_found, x) <= TOLERANCE


@each_progress
def test_the_gradient_of_the_boundary_is_that_of_pyvene(progress: float) -> None:
    theirs = pyvene.BoundlessRotatedSpaceIntervention(embed_dim=16)
    ours, (x, y) = Boundless(theirs.rotate_layer.weight), pair(16)
    ours.anneal(progress)
    theirs.set_temperature(torch.tensor(ours.temperature))
    for found in (ours.interchange(x, y), theirs(x, y)):
        found.square().sum().backward()
    mine, their_own = ours.boundary.grad, theirs.intervention_boundaries.grad
    assert mine is not None
    assert float(mine) == pytest.approx(float(their_own), rel=1e-4)
    assert float(mine) != 0


def test_a_mask_over_rotated_features_is_that_of_pyvene() -> None:
    theirs = pyvene.SigmoidMaskRotatedSpaceIntervention(embed_dim=16)
    ours, (x, y) = Rotation(theirs.rotate_layer.weight), pair(16)
    assert (theirs.masks[0].item(), theirs.temperature.item()) == (100.0, 50.0)
    theirs.masks.data = 100 * torch.randn(16)
    mask = torch.sigmoid(theirs.masks / 50.0)
    assert far(ours.mix(x, y, mask), theirs(x, y), x) <= TOLERANCE


@each_progress
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # pyvene's own
def test_a_mask_over_coordinates_is_that_of_pyvene(progress: float) -> None:
    theirs, ours, (x, y) = (
        pyvene.SigmoidMaskIntervention(embed_dim=16),
        Mask(Identity(16)),
        pair(16),
    )
    theirs.mask.data = torch.randn(16)
    ours.theta.data = theirs.mask.data.clone()
    ours.anneal(progress)
    theirs.set_temperature(torch.tensor(ours.temperature))
    assert far(ours.interchange(x, y), theirs(x, y), x) <= TOLERANCE


def test_pca_is_that_of_pyvene_and_what_it_drops() -> None:
    """pyvene keeps only what lies in the span: ours less the part of the base outside of it is
    theirs."""

    class Fitted:
        def __init__(self, ours: Pca) -> None:
            self.components_ = ours.directions.T.numpy()

    vectors, (x, y) = torch.randn(30, 10) * torch.linspace(0.3, 3, 10) + 1, pair(10)
    for features in (3, 10):
        ours = Pca.make(
            FeaturizerContext(subspace=Subspace("pca", features), width=10, activations=vectors)
        )
        theirs = pyvene.PCARotatedSpaceIntervention(
            embed_dim=10, pca=Fitted(ours), pca_mean=ours.centre.numpy(), pca_std=ours.scale.numpy()
        )
        _, rest = ours(x)
        dropped = rest - ours.centre
        assert far(ours.interchange(x, y) - dropped, theirs(x, y), x) <= TOLERANCE
        assert (float(dropped.abs().max()) > 0.1) == (features < 10)
