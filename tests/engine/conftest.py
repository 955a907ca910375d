"""Shapes that are checked: the engine's functions are called under jaxtyping's import hook, so that
beartype holds each tensor against its annotation."""

import sys

from jaxtyping import install_import_hook

from tests.engine import shapes

ENGINE = "raysearch.engine"

assert not any(name.startswith(f"{ENGINE}.") for name in sys.modules), (
    "the engine was imported before its import hook was put on"
)
install_import_hook(ENGINE, f"{shapes.__name__}.checked")
