"""A reader follows a wave from rows to logits in one sitting."""

from pathlib import Path

import raysearch.engine.execution as execution

PATH = ("evaluate_swaps", "wave_executor", "wave", "replay", "wave_cache")
"""Outputs of swaps; their waves; one wave; its way through the layers; its keys and values."""
MOST = 830


def test_the_way_of_a_wave_from_rows_to_logits_is_read_in_one_sitting() -> None:
    folder = Path(str(execution.__file__)).parent
    lines = sum(len((folder / f"{name}.py").read_text().splitlines()) for name in PATH)
    assert lines <= MOST
