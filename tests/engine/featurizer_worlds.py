"""One featurizer of every kind, with random parameters; vectors to try them on."""

import safetensors.torch
import torch
from torch import Tensor

from raysearch.core.featurizers import names
from raysearch.core.hypothesis import Subspace
from raysearch.engine.featurizers.construction import closed_form, make_untrained
from raysearch.engine.featurizers.featurizer import Featurizer
from raysearch.engine.featurizers.sae_file import SaeFile

ITEMS, HEADS = 5, 2

NAMED = {
    "identity": Subspace(),
    "coordinates": Subspace(coordinates=(2, 0)),
    "das": Subspace("das", 2),
    "boundless": Subspace("boundless"),
    "boundless_rank": Subspace("boundless_rank", 3),
    "mask": Subspace("mask"),
    "mask of heads": Subspace("mask", basis="heads"),
    "mask of pca": Subspace("mask", 3, basis="pca"),
    "mask of sae": Subspace("mask", basis="sae"),
    "pca": Subspace("pca", 2),
    "svd": Subspace("svd", 2),
    "mean_difference": Subspace("mean_difference"),
    "random": Subspace("random", 2),
    "sae": Subspace("sae"),
    "features of sae": Subspace("sae", coordinates=(3, 1)),
}
LEARN = {name: one for name, one in NAMED.items() if one.featurizer in names("trained")}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def autoencoder(
    width: int, features: int, generator: torch.Generator, jump: bool = False
) -> dict[str, Tensor]:
    shapes = {
        "W_enc": (width, features),
        "b_enc": (features,),
        "W_dec": (features, width),
        "b_dec": (width,),
    }
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return weights | ({"threshold": torch.rand(features, generator=generator)} if jump else {})


def made(name: str, width: int, seed: int) -> Featurizer:
    """With random parameters, in the middle of training."""
    generator, subspace = seeded(seed), NAMED[name]
    vectors = torch.randn((20, width), generator=generator) * torch.linspace(0.2, 3, width) + 1
    if subspace.featurizer in names("closed_form"):
        return closed_form(subspace, vectors, [i % 3 for i in range(20)])
    file = SaeFile(
        safetensors.torch.save(autoencoder(width, 2 * width + 1, generator, jump=bool(seed % 2)))
    )
    featurizer = make_untrained(subspace, width, generator, HEADS, file, vectors)
    with torch.no_grad():
        for parameter in featurizer.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    featurizer.anneal(0.7)
    return featurizer


def pair(width: int, seed: int, items: int = ITEMS) -> tuple[Tensor, Tensor]:
    generator = seeded(seed + 1000)
    return torch.randn((items, width), generator=generator), 3 * torch.randn(
        (items, width), generator=generator
    )


def near(found: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> bool:
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max()) <= tolerance * max(1.0, float(wanted.abs().max()))
