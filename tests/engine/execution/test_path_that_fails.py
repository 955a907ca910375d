"""A model whose code fails on a faster path is run otherwise, and the warning says so in words."""

import logging

import pytest

from raysearch.engine.replica import Replica
from tests.engine.more_worlds import MORE
from tests.engine.worlds import CONFIGS, POSITIONS, loaded, model_from, random_pairs


@pytest.mark.parametrize("family", ["jamba", "lfm2", "nemotron_h"])
def test_a_path_that_a_hybrid_cannot_take_is_said_in_words(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "raysearch"):
        made = loaded(model_from(MORE[family]()))
        replica = Replica(made, random_pairs(11, 4), POSITIONS, ["x"], "w")
    assert replica.opened.facts.path == "batched"
    (said,) = [r.getMessage() for r in caplog.records if r.name.startswith("raysearch")]
    assert "the replay path (only the tokens and layers that a patch can change" in said
    assert "was tried, and this model's code stops there with an error (IndexError: " in said
    assert said.endswith("so rows are run whole, not from the patch on; answers stay the same")
    assert "\n" not in said


def test_so_is_an_error_of_any_text(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_from(CONFIGS["gpt2"]())
    block = type(model.transformer.h[0])
    forward = block.forward

    def no_batches(self: object, hidden_states, *args, **kwargs):  # type: ignore[no-untyped-def]
        if len(hidden_states) > 1:
            raise KeyError("two\nlines")
        return forward(self, hidden_states, *args, **kwargs)

    monkeypatch.setattr(block, "forward", no_batches)
    with caplog.at_level(logging.WARNING, "raysearch"):
        Replica(loaded(model), random_pairs(11, 4), POSITIONS, ["x"], "w")
    said = [r.getMessage() for r in caplog.records if r.name.startswith("raysearch")]
    assert "the batched path (several rows in one batch) was tried" in said[0]
    assert "so each row is run by itself, slowly; answers stay the same" in said[0]
    assert all("\n" not in line for line in said)
