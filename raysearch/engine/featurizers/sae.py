"""A sparse autoencoder's features: given weights, never trained here.

z = a(x W_enc + b_enc), decode(z) = z W_dec + b_dec, and the interchange is

    x <- decode(swap(z(x), z(y), K)) + (x - decode(z(x))),

with the reconstruction error of the base kept (pyvene leaves it out). a is ReLU (Huben et al.,
2023, "Sparse Autoencoders Find Highly Interpretable Features in Language Models"), or JumpReLU
where there is a threshold: p where p > threshold, else 0 (Rajamanoharan et al., 2024, "Jumping
Ahead: Improving Reconstruction Fidelity with JumpReLU Sparse Autoencoders").

Invariants: only the features K are held: b_dec and the other features cancel, so that the
interchange is x + (z(y) - z(x)) W_dec over K.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from raysearch.engine.featurizers import safetensors_bytes as tensor_file
from raysearch.engine.featurizers.featurizer import (
    FeatureVectors,
    Featurizer,
    FeaturizerContext,
    Vectors,
    saved_copy,
    some_of,
    working_copy,
)
from raysearch.engine.featurizers.sae_file import CONFIG, SaeFile
from raysearch.errors import JobError

PLACES = {
    "encoder": ("W_enc", "encoder.weight"),
    "encoder_bias": ("b_enc", "encoder.bias"),
    "decoder": ("W_dec", "decoder.weight"),
    "decoder_bias": ("b_dec", "decoder.bias"),
    "threshold": ("threshold",),
}
"""The names that a file may give each. W_enc is (width, feature), W_dec (feature, width), as in
SAELens and Gemma Scope; those that end in "weight" are the transposes, as of torch's Linear. A
shape that fits only the other way round is turned."""


class Sae(Featurizer):
    """The features of an autoencoder, or some of them."""

    name: ClassVar[str] = "sae"
    stacks: ClassVar[bool] = True
    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    threshold: Tensor | None

    def __init__(
        self,
        encoder: Float[Tensor, "width feature"],
        encoder_bias: Float[Tensor, "feature"],
        decoder: Float[Tensor, "feature width"],
        decoder_bias: Float[Tensor, "width"],
        threshold: Float[Tensor, "feature"] | None = None,
    ) -> None:
        super().__init__(len(decoder_bias))
        self.register_buffer("encoder", working_copy(encoder))
        self.register_buffer("encoder_bias", working_copy(encoder_bias))
        self.register_buffer("decoder", working_copy(decoder))
        self.register_buffer("decoder_bias", working_copy(decoder_bias))
        self.register_buffer("threshold", None if threshold is None else working_copy(threshold))

    @classmethod
    def make(cls, context: FeaturizerContext) -> "Sae":
        if context.file is None:
            raise JobError("sae: the file of the sparse autoencoder is not named; give its path")
        sae, chosen = cls.read(context.file, context.width), context.subspace.coordinates
        return sae if chosen is None else sae.only(some_of(chosen, sae.features, cls.name))

    @classmethod
    def read(cls, file: SaeFile, width: int) -> Self:
        """Reads a sparse autoencoder for vectors of `width` from a safetensors file.

        Where the encoder takes x - b_dec, the cfg.json beside the file or its metadata must say so
        (apply_b_dec_to_input: true), or b_enc hold it.

        Raises: JobError where it is no sparse autoencoder of a form we know, or of another width.
        """
        try:
            tensors, texts = tensor_file.read(file.weights)
        except ValueError as e:
            raise JobError(f"sae: the file is {e}; name a sparse autoencoder in safetensors") from e
        parts = _parts(tensors)
        config, has = file.says(), "jumprelu" if "threshold" in parts else "standard"
        if (config.get("architecture") or has) != has:
            wrong = "a threshold, as of jumprelu" if has == "jumprelu" else "no threshold"
            raise JobError(
                f"sae: {CONFIG} says architecture: {config['architecture']}, the file has {wrong}; "
                f"put back the one that came with it"
            )
        if len(parts["decoder_bias"]) != width:
            raise JobError(
                f"sae: the autoencoder is for vectors of {len(parts['decoder_bias'])}, the unit "
                f"has {width}; name one that was trained at this site"
            )
        if config.get(
            "apply_b_dec_to_input", texts.get("apply_b_dec_to_input", "").lower() == "true"
        ):
            parts["encoder_bias"] = parts["encoder_bias"] - parts["decoder_bias"] @ parts["encoder"]
        return cls(**parts)

    def only(self, features: Shaped[Tensor, "feature"] | Sequence[int]) -> "Sae":
        """Returns the autoencoder with these features alone (their indices, or a mask of all)."""
        chosen = torch.as_tensor(features, device=self.encoder.device)
        threshold = None if self.threshold is None else self.threshold[chosen]
        return Sae(
            self.encoder[:, chosen],
            self.encoder_bias[chosen],
            self.decoder[chosen],
            self.decoder_bias,
            threshold,
        )

    @property
    def features(self) -> int:
        return len(self.encoder_bias)

    def orthonormal_directions(self) -> Float[Tensor, "width k"]:
        raise ValueError(
            "no sparse autoencoder is saved there; their loader knows identities and rotations "
            "alone"
        )

    def encode(self, vectors: Vectors) -> FeatureVectors:
        before = vectors @ self.encoder + self.encoder_bias
        active = torch.relu(before)
        return active if self.threshold is None else active * (before > self.threshold)

    def decode(self, features: FeatureVectors) -> Vectors:
        return features @ self.decoder + self.decoder_bias

    def forward(self, vectors: Vectors) -> tuple[FeatureVectors, Vectors]:
        features = self.encode(vectors)
        return features, vectors - self.decode(features)

    def inverse(self, features: FeatureVectors, rest: Vectors) -> Vectors:
        return self.decode(features) + rest

    def mix(
        self, base: Vectors, source: Vectors, mask: Float[Tensor, "*broadcast feature"] | None
    ) -> Vectors:
        change = self.encode(source) - self.encode(base)
        return base + (change if mask is None else change * mask) @ self.decoder

    def tensors(self) -> dict[str, Tensor]:
        return {name: saved_copy(tensor) for name, tensor in self.named_buffers()}

    @classmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        return cls(
            tensors["encoder"],
            tensors["encoder_bias"],
            tensors["decoder"],
            tensors["decoder_bias"],
            tensors.get("threshold"),
        )


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors by our names, in float32. Raises: JobError where one is missing."""
    found = {part: [name for name in names if name in tensors] for part, names in PLACES.items()}
    missing = [
        PLACES[part][0] for part, names in found.items() if not names and part != "threshold"
    ]
    known = {names[0] for names in found.values() if names}
    strange = sorted(set(tensors) - known)
    if missing or strange:
        what = (
            f"has no {', '.join(missing)}"
            if missing
            else f"has {', '.join(strange)}, which we do not know"
        )
        raise JobError(
            f"sae: the file {what}; need W_enc, b_enc, W_dec, b_dec (or encoder.weight, ...), and "
            f"for JumpReLU threshold"
        )
    parts = {part: tensors[names[0]].float() for part, names in found.items() if names}
    sizes = parts["decoder_bias"].numel(), parts["encoder_bias"].numel()
    wanted = {
        "encoder": sizes,
        "encoder_bias": sizes[1:],
        "decoder": sizes[::-1],
        "decoder_bias": sizes[:1],
        "threshold": sizes[1:],
    }
    for part, tensor in parts.items():
        (name,) = found[part]
        turned = tensor.T if name.endswith("weight") else tensor
        if tensor.ndim == 2 and turned.shape != wanted[part]:
            turned = turned.T
        if turned.shape != wanted[part]:
            raise JobError(
                f"sae: {name} has shape {tuple(tensor.shape)}; the biases say {sizes[1]} features "
                f"of vectors of {sizes[0]}"
            )
        parts[part] = turned
    return parts
