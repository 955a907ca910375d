"""Where a job has scores, a path in float32 is held to each logit that they read, and not only to
the gap that an output hangs on."""

import logging
from dataclasses import replace

import pytest
import torch

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.answer_scores import (
    Scoring,
    answer_logits_error,
)
from raysearch.engine.execution.executors import BatchedExecutor, PlainExecutor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.predict import predict
from raysearch.engine.execution.selfcheck import select_executor
from raysearch.engine.execution.selfcheck_rows import selfcheck_rows
from raysearch.engine.patching.rows import swap
from tests.engine.worlds import encoded_pairs, model_of, world_of


def asked_of(shift: float, scored: bool, dtype: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path that is taken where a batch has the logits of the scored ids `shift` higher, but for
    those of the best two."""
    world = world_of(model_of("llama").to(getattr(torch, dtype)))
    pairs = [
        replace(p, answers={"base": (3,)}, counterfactual={"x": (4 + p.index % 3,)})
        for p in encoded_pairs(3, 8)
    ]
    rows = [swap(p.base, p.sources["source"], 1, (0,)) for p in pairs]
    as_it_is = BatchedExecutor.logits

    def moved(
        path: BatchedExecutor, rows: list, lent: object = None, choices_only: bool = False
    ) -> torch.Tensor:
        logits = as_it_is(path, rows, lent).clone()
        best = logits.topk(2).indices
        out = torch.zeros_like(logits)
        out[:, 3:7] = shift
        return logits + out.scatter(1, best, 0.0)

    monkeypatch.setattr(BatchedExecutor, "logits", moved)
    scoring = Scoring(("logit_difference",), pairs) if scored else Scoring()
    trial = selfcheck_rows(rows, world.layers)
    # Replay does not go by BatchedExecutor, so that it is left out here.
    monkeypatch.setattr(type(world.network), "can_replay", False)
    return select_executor(
        world.network, world.taps, trial, RowLimit(8), 2**28, dtype, scoring=scoring
    ).executor.name


@pytest.mark.parametrize(
    ("shift", "scored", "dtype", "path"),
    [
        (0.0, True, "float32", "batched"),
        (4e-4, False, "float32", "batched"),
        (4e-4, True, "float32", "plain"),
        (1e-4, True, "float32", "batched"),
        (4e-4, True, "bfloat16", "batched"),
    ],
)
def test_a_path_that_moves_a_logit_of_a_score_is_not_taken_in_float32(
    shift: float,
    scored: bool,
    dtype: str,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert asked_of(shift, scored, dtype, monkeypatch) == path
    assert ("logits that scores read differ by up to" in caplog.text) == (path == "plain")


def test_the_error_of_what_is_heard_is_the_most_that_any_of_it_moves() -> None:
    one = 0.1, 0.5, -1.0, -2.0
    assert answer_logits_error(one, (0.1, 0.5, -1.25, -2.0)) == 0.25
    assert answer_logits_error(one, (0.1, 1.0, -1.0, -2.0)) == 0.5
    assert answer_logits_error(one, None) == answer_logits_error(None, None) == 0.0


def test_what_is_held_is_what_captures_and_the_canonical_computation_hear() -> None:
    """Of a row on a base of a pair both read the same ids, and the plain path differs by nothing."""
    world, pairs = world_of(model_of("llama")), encoded_pairs(3, 4)
    scoring = Scoring(
        ("kl",), [replace(p, answers={"base": (3,)}, counterfactual={"x": (5,)}) for p in pairs]
    )
    captures = ActivationCache(world.network, world.taps, RowLimit(8), 0.0, 2**28, scoring=scoring)
    for pair in pairs:
        (said,) = captures.predictions([swap(pair.base, pair.base, 0, (0,)).unpatched])
        plain = PlainExecutor(world.network, world.taps).logits(
            [swap(pair.base, pair.base, 0, (0,)).unpatched]
        )
        logits = plain[0] - plain[0].max()
        assert scoring.of_base(pair.base) == (3, 5)
        assert said.answer_logits[2:] == pytest.approx(logits[[3, 5]].tolist(), abs=1e-5)
        assert said.id == predict(plain)[0].id
