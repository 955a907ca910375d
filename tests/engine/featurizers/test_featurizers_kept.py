"""Featurizers kept as bytes and read again; what cannot be had, refused in one line."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysearch.core.hypothesis import Subspace
from raysearch.engine.featurizers.construction import (
    closed_form,
    from_bytes,
    make_untrained,
    to_bytes,
)
from raysearch.engine.featurizers.rotation import Rotation
from raysearch.engine.featurizers.sae import Sae
from raysearch.engine.featurizers.sae_file import SaeFile
from raysearch.errors import JobError, ModelError, StoreError
from tests.engine.featurizer_worlds import NAMED, autoencoder, made, near, pair, seeded

each = pytest.mark.parametrize("name", NAMED)
widths = st.integers(2, 12).map(lambda half: 2 * half)
seeds = st.integers(0, 10_000)


@each
@settings(max_examples=10)
@given(width=widths, seed=seeds)
def test_what_is_kept_as_bytes_computes_what_the_hardened_one_did(
    name: str, width: int, seed: int
) -> None:
    featurizer, (x, y) = made(name, width, seed), pair(width, seed)
    featurizer.harden()
    read = from_bytes(to_bytes(featurizer))
    with torch.no_grad():
        assert near(read.interchange(x, y), featurizer.interchange(x, y), 1e-6)
    assert type(read) is type(featurizer)
    assert read.width == width
    assert to_bytes(read) == to_bytes(featurizer)
    assert read.found() == featurizer.found()


@each
def test_equal_content_is_equal_bytes_and_another_is_others(name: str) -> None:
    digests = {hashlib.sha256(to_bytes(made(name, 8, 1))).hexdigest() for _ in range(20)}
    assert len(digests) == 1
    if name not in ("identity", "coordinates"):
        assert hashlib.sha256(to_bytes(made(name, 8, 2))).hexdigest() not in digests


# ---- what cannot be had


SAE = SaeFile(safetensors.torch.save(autoencoder(6, 9, seeded(0))))
GATED = SaeFile(safetensors.torch.save(autoencoder(6, 9, seeded(0)) | {"r_mag": torch.zeros(9)}))
BENT = SaeFile(safetensors.torch.save(autoencoder(6, 9, seeded(0)) | {"W_dec": torch.zeros(9, 5)}))
JUMPING = SaeFile(safetensors.torch.save(autoencoder(6, 9, seeded(0), jump=True)))


def said(file: SaeFile = SAE, **more: object) -> SaeFile:
    """With the cfg.json that SAELens writes, but for `more`."""
    usual = {
        "architecture": "standard",
        "activation_fn_str": "relu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "hook_head_index": None,
        "activation_fn_kwargs": {},
    }
    return replace(file, config=json.dumps(usual | more).encode())


@pytest.mark.parametrize(
    ("subspace", "more", "says"),
    [
        (Subspace("das", 9), {}, "das: 9 features of a vector of 8; ask for 1 to 8"),
        (Subspace("das", 0), {}, "das: 0 features"),
        (Subspace("das"), {}, "das: how many features is not said"),
        (Subspace("random", -1), {}, "random: -1 features"),
        (Subspace("boundless_rank", 9), {}, "boundless_rank: 9 features of a vector of 8"),
        (Subspace("boundless", 4), {}, "boundless: has no number of features to choose, got 4"),
        (Subspace("rotation\n", 4), {}, r"'rotation\\n' is no featurizer; use identity, das"),
        (Subspace("identity", 3), {}, "identity: has no number of features"),
        (Subspace(coordinates=(1, 8)), {}, "identity: feature 8; it has 0..7"),
        (Subspace(coordinates=(1, 1)), {}, "identity: a feature twice"),
        (Subspace(coordinates=()), {}, "identity: no feature"),
        (Subspace("das", 2, coordinates=(1,)), {}, "das: coordinates cannot be chosen"),
        (
            Subspace("mask", basis="neurons"),
            {},
            "'neurons' is no basis; use coordinates, pca, sae, heads",
        ),
        (Subspace("mask", basis="heads"), {}, "mask: 0 heads in a vector of 8"),
        (Subspace("mask", basis="heads"), {"heads": 3}, "mask: 3 heads in a vector of 8"),
        (Subspace("mask", basis="pca"), {}, "need activations"),
        (
            Subspace("mask", 9, basis="pca"),
            {"activations": torch.ones(3, 8)},
            "mask: 9 features of a vector of 8",
        ),
        (Subspace("mask", basis="sae"), {}, "sae: the file of the sparse autoencoder is not named"),
        (
            Subspace("sae"),
            {"file": SAE},
            "sae: the autoencoder is for vectors of 6, the unit has 8",
        ),
        (Subspace("mask", basis="sae"), {"file": SAE}, "for vectors of 6, the unit has 8"),
        (Subspace("sae"), {"file": SaeFile(b"PK")}, "sae: the file is no safetensors"),
        (Subspace("sae"), {"file": SaeFile(b"")}, "sae: the file is no safetensors"),
        (
            Subspace("sae"),
            {"file": SaeFile(safetensors.torch.save({"x": torch.ones(1)}))},
            "has no W_enc, b_enc, W_dec, b_dec",
        ),
        (Subspace("sae"), {"file": GATED}, "has r_mag, which we do not know"),
        (Subspace("sae"), {"file": BENT}, r"W_dec has shape \(9, 5\)"),
        (
            Subspace("sae"),
            {"file": replace(SAE, config=b"{")},
            "cfg.json beside the file is no JSON",
        ),
        (
            Subspace("sae"),
            {"file": replace(SAE, config=b'{"k": 32}')},
            "does not say apply_b_dec_to_input",
        ),
        (
            Subspace("sae"),
            {"file": said(architecture="topk")},
            'architecture: "topk"; read is only "standard" or "jumprelu"',
        ),
        (
            Subspace("sae"),
            {"file": said(activation_fn_str="topk")},
            'activation_fn_str: "topk"; read is only "relu"',
        ),
        (
            Subspace("sae"),
            {"file": said(normalize_activations="layer_norm")},
            "says normalize_activations",
        ),
        (
            Subspace("sae"),
            {"file": said(normalize_activations=True)},
            "says normalize_activations: true",
        ),
        (
            Subspace("sae"),
            {"file": said(finetuning_scaling_factor=True)},
            "says finetuning_scaling_factor",
        ),
        (Subspace("sae"), {"file": said(JUMPING)}, "has a threshold, as of jumprelu"),
        (Subspace("sae"), {"file": said(architecture="jumprelu")}, "has no threshold"),
    ],
)
def test_what_a_subspace_asks_and_cannot_be_had_is_one_line(
    subspace: Subspace, more: Mapping[str, object], says: str
) -> None:
    with pytest.raises(JobError, match=says) as refused:
        make_untrained(subspace, 8, seeded(0), **more)
    assert "\n" not in str(refused.value)


def test_a_feature_that_an_autoencoder_has_not_is_refused() -> None:
    with pytest.raises(JobError, match=r"sae: feature 9; it has 0\.\.8"):
        make_untrained(Subspace("sae", coordinates=(9,)), 6, seeded(0), file=SAE)


@pytest.mark.parametrize(
    ("subspace", "vectors", "error", "says"),
    [
        (Subspace("pca", 9), torch.ones(20, 8), JobError, "pca: 9 features of a vector of 8"),
        (
            Subspace("pca", 4),
            torch.eye(4, 8),
            JobError,
            "pca: 4 features asked, the centred activations span 3",
        ),
        (
            Subspace("svd", 5),
            torch.eye(4, 8),
            JobError,
            "svd: 5 features asked, the activations span 4",
        ),
        (
            Subspace("pca"),
            torch.ones(4, 8),
            JobError,
            "pca: any features asked, the centred activations span 0",
        ),
        (Subspace("svd", 1), torch.ones(0, 8), JobError, "svd: no activations"),
        (Subspace("mean_difference"), torch.ones(4, 8), JobError, "the means of 2 classes span 0"),
        (
            Subspace("mean_difference", 2),
            torch.eye(4, 8),
            JobError,
            "2 features asked, the means of 2 classes span 1",
        ),
        (
            Subspace("svd", 1),
            torch.full((4, 8), torch.nan),
            ModelError,
            "svd: an activation is not finite",
        ),
    ],
)
def test_what_activations_do_not_determine_is_one_line(
    subspace: Subspace, vectors: Tensor, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        closed_form(subspace, vectors, [i % 2 for i in range(len(vectors))])
    assert "\n" not in str(refused.value)


def test_a_mean_difference_needs_two_classes() -> None:
    with pytest.raises(JobError, match="all 4 activations are of one class"):
        closed_form(Subspace("mean_difference"), torch.eye(4, 8), ["same"] * 4)


def told(tensors: dict[str, Tensor], **about: object) -> bytes:
    whole = {"format": 1, "name": "das", "width": 4} | about
    return safetensors.torch.save(tensors, {"featurizer": json.dumps(whole)})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no safetensors"),
        (pickle.dumps({"directions": [1.0]}), "no safetensors"),
        (to_bytes(Rotation(torch.eye(4, 2)))[:-1], "no safetensors"),
        (safetensors.torch.save({"directions": torch.eye(4, 2)}), "'featurizer' is missing"),
        (safetensors.torch.save({}, {"featurizer": "{"}), "saved featurizer"),
        (safetensors.torch.save({}, {"featurizer": "[]"}), "saved featurizer"),
        (told({"directions": torch.eye(4, 2)}, format=2), "format 2, this version reads 1"),
        (told({"directions": torch.eye(4, 2)}, name="magic"), "'magic' is no featurizer"),
        (told({"directions": torch.eye(4, 2)}, width=5), "vectors of 4, said to be for 5"),
        (told({"vectors": torch.eye(4, 2)}), "'directions' is missing"),
        (told({"directions": torch.ones(4)}), r"directions of shape \(4,\)"),
        (told({"directions": torch.eye(2, 4)}, width=2), r"directions of shape \(2, 4\)"),
        (told({"directions": torch.ones(4, 2)}), "not orthonormal"),
        (told({"directions": torch.full((4, 2), torch.nan)}), "not orthonormal"),
        (told({"directions": torch.eye(4, 2)}, name="boundless"), "need a full rotation"),
        (told({"directions": torch.eye(4, 4)}, name="boundless"), "'boundary' is missing"),
        (told({"coordinates": torch.tensor([0, 4])}, name="identity"), "coordinates"),
        (told({"theta": torch.ones(4)}, name="mask"), "saved featurizer"),
        (
            told({"theta": torch.ones(3), "identity.coordinates": torch.arange(4)}, name="mask"),
            "of equal width",
        ),
    ],
)
def test_bytes_that_are_no_featurizer_are_refused_in_one_line(content: bytes, says: str) -> None:
    with pytest.raises(StoreError, match=says) as refused:
        from_bytes(content)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("jump", [False, True])
@pytest.mark.parametrize("applied", [False, True])
def test_a_file_of_saelens_is_read_as_the_cfg_beside_it_says(
    tmp_path: Path, jump: bool, applied: bool
) -> None:
    weights, (x, _) = autoencoder(6, 9, seeded(0), jump), pair(6, 0)
    (tmp_path / "sae_weights.safetensors").write_bytes(safetensors.torch.save(weights))
    config = said(
        architecture="jumprelu" if jump else "standard", apply_b_dec_to_input=applied
    ).config
    (tmp_path / "cfg.json").write_bytes(config or b"")
    sae = Sae.read(SaeFile.at(tmp_path / "sae_weights.safetensors"), 6)
    before = (x - weights["b_dec"] if applied else x) @ weights["W_enc"] + weights["b_enc"]
    wanted = torch.relu(before) * (before > weights["threshold"] if jump else 1)
    assert near(sae.encode(x), wanted)
    assert not torch.allclose(sae.encode(x), torch.zeros(()))


def test_the_cfg_beside_an_autoencoder_is_part_of_its_digest(tmp_path: Path) -> None:
    file = tmp_path / "sae.safetensors"
    file.write_bytes(SAE.weights)
    alone = SaeFile.at(file).digest
    assert alone == hashlib.sha256(SAE.weights).hexdigest()
    digests = {alone}
    for applied in (False, True):
        (tmp_path / "cfg.json").write_bytes(said(apply_b_dec_to_input=applied).config or b"")
        digests.add(SaeFile.at(file).digest)
    assert len(digests) == 3
