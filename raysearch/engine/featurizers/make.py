"""The one door to featurizers: made for a subspace, and kept as bytes.

Invariants: what a subspace asks and cannot be had is said in one line before anything runs; equal
content, equal bytes; what is read back is hardened and computes what was kept.
"""

import json
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from raysearch.core.hypothesis import CLOSED_FORM, Subspace, canonical_json
from raysearch.engine.featurizers import safetensors_bytes as tensor_file
from raysearch.engine.featurizers.boundless import Boundless, BoundlessRank
from raysearch.engine.featurizers.featurizer import Featurizer, Vectors
from raysearch.engine.featurizers.identity import Identity
from raysearch.engine.featurizers.linear import MeanDifference, Pca, Random, Svd
from raysearch.engine.featurizers.mask import Mask
from raysearch.engine.featurizers.rotation import Rotation, random_directions
from raysearch.engine.featurizers.sae import Sae
from raysearch.engine.featurizers.sae_file import SaeFile
from raysearch.engine.featurizers.spans import LinearSubspace, unevenness
from raysearch.errors import JobError, StoreError

FEATURIZERS: Mapping[str, type[Featurizer]] = {
    one.name: one
    for one in (
        Identity,
        Rotation,
        Boundless,
        BoundlessRank,
        Mask,
        Pca,
        Svd,
        MeanDifference,
        Random,
        Sae,
    )
}
"""By the name that a subspace gives them."""

BASES = ("coordinates", "pca", "sae", "heads")
"""Over which a mask may lie."""

_FORMAT = 1
_SIZED = ("das", "boundless_rank", "random")
_OF_SOME = ("identity", "sae")
_TOLERANCE = 1e-4
_FAULTS = (KeyError, ValueError, TypeError, IndexError, RuntimeError)
"""What `from_tensors` may raise."""


def untrained(
    subspace: Subspace,
    width: int,
    generator: torch.Generator,
    heads: int = 0,
    file: SaeFile | None = None,
    activations: Vectors | None = None,
) -> Featurizer:
    """The featurizer of `subspace` for vectors of `width`, before training; or as it is, where
    nothing trains it.

    `heads`: how many of equal width lie in the vector (0: none). `file`: of a sparse autoencoder.
    `activations`: from which the components are computed that a mask lies over.

    Raises: JobError for what cannot be had.
    """
    name = _checked(subspace, width)
    assert name not in CLOSED_FORM, f"{name} is computed from activations, by closed_form"
    features = subspace.features or 0
    if name == "das":
        return Rotation.random(width, features, generator)
    if name == "boundless":
        return Boundless(random_directions(width, width, generator))
    if name == "boundless_rank":
        return BoundlessRank.random(width, features, generator)
    if name == "random":
        return Random.draw(width, features, generator)
    if name == "sae":
        sae = _sae(file, width)
        return (
            sae
            if subspace.coordinates is None
            else sae.only(_some(subspace.coordinates, sae.features, "sae"))
        )
    if name == "mask":
        return _mask(subspace, width, heads, file, activations)
    coordinates = subspace.coordinates
    return Identity(width, None if coordinates is None else _some(coordinates, width, "identity"))


def closed_form(
    subspace: Subspace, activations: Vectors, labels: Sequence[Hashable] = ()
) -> Featurizer:
    """The featurizer that is computed from `activations`, and for a mean difference from the class
    of each.

    Raises: JobError where they do not determine it, ModelError where they are not finite.
    """
    name = _checked(subspace, activations.shape[1])
    if name == "pca":
        return Pca.of(activations, subspace.features)
    if name == "svd":
        return Svd.of(activations, subspace.features)
    assert name == "mean_difference", f"{name} is not computed from activations"
    return MeanDifference.of(activations, labels, subspace.features)


def to_bytes(featurizer: Featurizer) -> bytes:
    """Safetensors. Its SHA-256 is the featurizer's digest."""
    about = {"format": _FORMAT, "name": featurizer.name, "width": featurizer.width}
    return tensor_file.write(featurizer.tensors(), "featurizer", canonical_json(about))


def from_bytes(content: bytes) -> Featurizer:
    """The featurizer, hardened, on the CPU. Raises: StoreError for what `to_bytes` did not make."""
    try:
        tensors, texts = tensor_file.read(content)
        about = json.loads(texts["featurizer"])
        if about["format"] != _FORMAT:
            raise ValueError(f"format {about['format']}, this version reads {_FORMAT}")
        featurizer = FEATURIZERS[about["name"]].from_tensors(about["width"], tensors)
        _check_whole(featurizer, about["width"])
    except _FAULTS as e:
        raise StoreError(
            f"this is no saved featurizer: {_said(e)}; fit it again, or take the file that fit made"
        ) from e
    return featurizer


def from_parts(subspace: Subspace, width: int, tensors: Mapping[str, Tensor]) -> Featurizer:
    """The featurizer of `subspace`, hardened, on the CPU, whose `tensors()` these are. Raises:
    StoreError where they do not fit it."""
    try:
        featurizer = FEATURIZERS[subspace.featurizer].from_tensors(width, tensors)
        _check_whole(featurizer, width)
        count = (
            featurizer.directions.shape[1]
            if isinstance(featurizer, LinearSubspace)
            else subspace.features
        )
        if subspace.features is not None and count != subspace.features:
            raise ValueError(f"tensors of {count} features, said to be of {subspace.features}")
    except _FAULTS as e:
        raise StoreError(
            f"the tensors do not fit its subspace ({subspace.featurizer}): {_said(e)}"
        ) from e
    return featurizer


def _said(e: Exception) -> str:
    return f"{e} is missing or unknown" if isinstance(e, KeyError) else str(e)


@torch.no_grad()
def _check_whole(featurizer: Featurizer, width: int) -> None:
    """Raises: ValueError, RuntimeError where it cannot be used."""
    if featurizer.width != width:
        raise ValueError(f"tensors for vectors of {featurizer.width}, said to be for {width}")
    featurizer.interchange(torch.zeros(1, width), torch.ones(1, width))
    if (
        isinstance(featurizer, LinearSubspace)
        and not unevenness(featurizer.directions) <= _TOLERANCE
    ):
        raise ValueError("its directions are not orthonormal")


def _checked(subspace: Subspace, width: int) -> str:
    """The featurizer's name. Raises: JobError for what no featurizer of that name can be."""
    name, features = subspace.featurizer, subspace.features
    if name not in FEATURIZERS:
        raise JobError(f"{name!r} is no featurizer; use {', '.join(FEATURIZERS)}")
    if name in _SIZED and features is None:
        raise JobError(f"{name}: how many features is not said; name a number from 1 to {width}")
    if features is not None and not 1 <= features <= width:
        raise JobError(f"{name}: {features} features of a vector of {width}; ask for 1 to {width}")
    if subspace.coordinates is not None and name not in _OF_SOME:
        raise JobError(f"{name}: coordinates cannot be chosen; only of {', '.join(_OF_SOME)}")
    has_size = name in (*_SIZED, *CLOSED_FORM) or (name, subspace.basis) == ("mask", "pca")
    if (
        features is not None
        and not has_size
        and (name != "identity" or features != width or subspace.coordinates)
    ):
        raise JobError(f"{name}: has no number of features to choose, got {features}; leave it out")
    return name


def _mask(
    subspace: Subspace, width: int, heads: int, file: SaeFile | None, activations: Vectors | None
) -> Mask:
    basis = subspace.basis or "coordinates"
    if basis == "coordinates":
        return Mask(Identity(width))
    if basis == "heads":
        if heads < 1 or width % heads:
            raise JobError(
                f"mask: {heads} heads in a vector of {width}; name a component whose heads are of "
                f"equal width"
            )
        return Mask(Identity(width), groups=heads)
    if basis == "sae":
        return Mask(_sae(file, width))
    if basis == "pca":
        if activations is None:
            raise JobError(
                "mask: its principal components need activations, and there are none; give fit "
                "pairs"
            )
        return Mask(Pca.of(activations, subspace.features))
    raise JobError(f"mask: {basis!r} is no basis; use {', '.join(BASES)}")


def _sae(file: SaeFile | None, width: int) -> Sae:
    if file is None:
        raise JobError("sae: the file of the sparse autoencoder is not named; give its path")
    return Sae.read(file, width)


def _some(chosen: Sequence[int], count: int, name: str) -> list[int]:
    """Raises: JobError where they are not some of `count`, each once."""
    wrong = next((c for c in chosen if not 0 <= c < count), None)
    if wrong is not None or not chosen or len(set(chosen)) < len(chosen):
        got = (
            "no feature"
            if not chosen
            else f"feature {wrong}"
            if wrong is not None
            else "a feature twice"
        )
        raise JobError(f"{name}: {got}; it has 0..{count - 1}, each to be named once")
    return list(chosen)
