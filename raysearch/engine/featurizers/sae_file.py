"""A sparse autoencoder as it lies on disk: its weights, and the cfg.json that SAELens writes beside
them. Needs no torch.

Invariants: where there is a cfg.json it is part of the digest; what it says and we do not do is
refused, never passed over.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from raysearch.errors import JobError

CONFIG = "cfg.json"
ARCHITECTURES = ("standard", "jumprelu")
"""The architectures, of those that SAELens knows, that are read. In a topk the features compete, so
that some of them alone are not to be had."""

_ONLY: Mapping[str, tuple[Any, ...]] = {
    "architecture": ARCHITECTURES,
    "activation_fn": ("relu",),
    "activation_fn_str": ("relu",),
    "normalize_activations": ("none", False),
    "reshape_activations": ("none",),
    "finetuning_scaling_factor": (False,),
    "rescale_acts_by_decoder_norm": (False,),
}
"""The values that each key may have, where it is there and not null: others change the features."""


@dataclass(frozen=True, slots=True)
class SaeFile:
    """`weights`: a safetensors file. `config`: the cfg.json in the same folder, if there is one."""

    weights: bytes
    config: bytes | None = None

    @classmethod
    def at(cls, path: Path) -> Self:
        """Raises: OSError where a file that is there cannot be read, or the weights are not
        there."""
        config = path.with_name(CONFIG)
        return cls(path.read_bytes(), config.read_bytes() if config.exists() else None)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights; with a cfg.json, of the SHA-256s of both."""
        weights = hashlib.sha256(self.weights)
        if self.config is None:
            return weights.hexdigest()
        return hashlib.sha256(weights.digest() + hashlib.sha256(self.config).digest()).hexdigest()

    def says(self) -> Mapping[str, Any]:
        """Returns the checked content of the cfg.json; empty if there is none. Raises: JobError for
        what is not read here."""
        if self.config is None:
            return {}
        try:
            config = json.loads(self.config)
        except ValueError as e:
            raise JobError(
                f"sae: {CONFIG} beside the file is no JSON ({e}); put back the one that came with "
                f"it"
            ) from e
        if not isinstance(config, dict) or not isinstance(config.get("apply_b_dec_to_input"), bool):
            raise JobError(
                f"sae: {CONFIG} beside the file does not say apply_b_dec_to_input (true or false); "
                "it should be one of SAELens, or lie elsewhere"
            )
        for key, may in _ONLY.items():
            value = config.get(key)
            if value is not None and value not in may:
                raise JobError(
                    f"sae: {CONFIG} says {key}: {json.dumps(value)}; read is only "
                    f"{' or '.join(map(json.dumps, may))}"
                )
        return config
