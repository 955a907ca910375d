"""What a step of training costs on a small language model, through the trainer that a replica has.

    OMP_NUM_THREADS=1 python benchmarks/language_training.py [--tiny]

A Llama of 4 layers of 64 with random weights, where the model itself costs little: 64 pairs of 24
tokens, batch 32, rotations of 4 directions at the last token of layer 1, one fit and 24 seeds and
layers in one call. Processor time of a step, the difference of two trainings of other lengths;
medians of `--repeats`. Before and after a change it is run in turn at both commits. The last line is
the time of a step and fit among 24.
"""

import argparse
import statistics
import time

import row_cost
import torch
from gpu_world import build, drawn, open_replica
from transformers import LlamaConfig

import raysearch as rs
from raysearch.core.fit_keys import FitKeys
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.replica import Replica
from raysearch.engine.training.fit_request import FitOutcome, FitRequest

STEPS = 4, 16
RECIPE = FitKeys().model_copy(
    update={"steps": 100, "batch": 32, "evaluate": 0, "validation": 0.0, "learning_rate": 1e-3}
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="Only to see that it runs.")
    asked = parser.parse_args()
    replica = _replica(8 if asked.tiny else 64)
    for fits in (1, 3 if asked.tiny else 24):
        requests = [_request(1 + at % 3, at // 3) for at in range(fits)]
        took = [_of_a_step(replica, requests) for _ in range(1 if asked.tiny else asked.repeats)]
        each = 1e3 * statistics.median(took) / fits
        print(f"{fits} fits: {each:.3f} ms a step and fit")
    print(f"ms: {each:.3f}")


def _replica(pairs: int) -> Replica:
    model = build(LlamaConfig(**row_cost.SHAPE), torch.device("cpu"), "float32")
    encoded = drawn(row_cost.SHAPE["vocab_size"], 24, pairs, row_cost.AT, choices=())
    return open_replica(model, "float32", encoded, RunnerSettings(rows=2048, recipe=RECIPE))


def _request(layer: int, seed: int) -> FitRequest:
    unit = rs.Unit(rs.Site(layer, "residual", "token_23"), rs.Subspace("das", 4))
    return FitRequest(rs.Intervention((unit,), variable="x"), seed)


def _of_a_step(replica: Replica, requests: list[FitRequest]) -> float:
    pairs = replica.opened.encoded
    of_pairs = {p.index: (7 + p.index % 50,) for p in pairs}
    targets = {one.intervention.id: of_pairs for one in requests}
    trainer, taken = replica._runner.trainer, []
    for steps in STEPS:
        began = time.process_time()
        found = trainer.fit(requests, pairs, targets, 0, steps)
        taken.append(time.process_time() - began)
        assert all(isinstance(one, FitOutcome) for one in found), found[0]
    return (taken[1] - taken[0]) / (STEPS[1] - STEPS[0])


if __name__ == "__main__":
    main()
