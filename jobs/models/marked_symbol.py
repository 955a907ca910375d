"""A small vision transformer that names the marked symbol; trained by
scripts/train_marked_symbol.py.

Its tokens are the class token (0) and the nine patches (1 to 9, row by row).
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

WEIGHTS = Path(__file__).with_name("marked_symbol.safetensors")


def untrained() -> nn.Module:
    """Three layers of 32, four heads each."""
    return ViTForImageClassification(
        ViTConfig(
            image_size=12,
            patch_size=4,
            num_channels=1,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            num_labels=4,
        )
    )


def trained() -> nn.Module:
    """The network of jobs/marked_symbol.yaml."""
    model = untrained()
    model.load_state_dict(load_file(WEIGHTS))
    return model
