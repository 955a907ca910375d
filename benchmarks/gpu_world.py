"""What benchmarks without files run on: models with random weights, pairs of random tokens, and a
replica of both, opened as a worker opens it (self-check, tolerance, canonical decisions, meter).

Each pair answers with one of two tokens, whose rows of the head are longer than the others, so that
near-ties in bfloat16 are about as many as on a problem that a trained model solves (SmolLM2: 3 to
4 %). Of 200 random prompts they are 4.0 % in GPT-2's shape, and 5.5 % in Llama-3.1-8B's with 2 of
its 32 layers; with equal rows and the whole vocabulary 31 % in both.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

import raysearch as rs
from raysearch.causal import ONE_SOURCE
from raysearch.core.events import Encoded
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.networks.half_precision import speed_up
from raysearch.engine.networks.network import Encoder, LanguageModel
from raysearch.engine.replica import Replica

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
ANSWERS = (7, 11)
"""The ids that answers are chosen among."""
LONGER = 8.0
"""How much longer the answers' rows of the head are than the others."""


@dataclass(frozen=True)
class Drawn:
    """A model with random weights and pairs of random tokens, as a replica takes what was loaded.
    Without a digest, so that each replica does its self-check."""

    model: PreTrainedModel
    dtype: str
    encoded: tuple[Encoded, ...]
    digest: str = ""
    commit: None = None
    unused: tuple[()] = ()

    def open(self, pairs: Sequence[rs.Pair]) -> tuple[LanguageModel, Encoder]:
        """The model as a network; pairs are what was drawn."""
        return LanguageModel(self.model), lambda *_: self.encoded[: len(pairs)]

    def reinitialised(self, seed: int = 0) -> "Drawn":
        raise NotImplementedError("a benchmark asks for no control of random weights")


def build(
    config: PretrainedConfig, device: torch.device, dtype: str, seed: int = 0
) -> PreTrainedModel:
    """A model with random weights, made on the device itself."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    model.eval().requires_grad_(False)
    head = model.get_output_embeddings()
    head.weight[torch.tensor(ANSWERS, device=device)] *= LONGER
    speed_up(model)  # as the loader does; of use on a CPU alone
    return model


def drawn(
    vocab: int, tokens: int, pairs: int, at: Sequence[int], choices: tuple[int, ...] = ANSWERS
) -> tuple[Encoded, ...]:
    """Pairs of prompts of random tokens that share none, with one position for each token of
    `at`."""
    rng = random.Random(f"{tokens}.prompts")
    positions = {f"token_{t}": (t,) for t in at}

    def prompt() -> tuple[int, ...]:
        return tuple(rng.randrange(vocab) for _ in range(tokens))

    return tuple(
        Encoded(
            *(index, prompt(), {ONE_SOURCE: prompt()}, positions, {ONE_SOURCE: positions}),
            *({"base": (rng.choice(ANSWERS),)}, {"x": (rng.choice(ANSWERS),)}),
            choices=choices,
        )
        for index in range(pairs)
    )


def open_replica(
    model: PreTrainedModel,
    dtype: str,
    encoded: tuple[Encoded, ...],
    settings: RunnerSettings,
    components: Sequence[str] = ("residual",),
) -> Replica:
    """A replica of all that was drawn."""
    return Replica(
        *(Drawn(model, dtype, encoded), [_pair(e) for e in encoded]),
        *(tuple(encoded[0].base_positions), ("x",), "gpu", ""),
        *(settings, components),
    )


def _pair(encoded: Encoded) -> rs.Pair:
    """What stands for a drawn pair where texts would."""
    nothing = rs.Input("tokens", {})
    answers = {"base": "a", ONE_SOURCE: "b"}
    return rs.Pair(encoded.index, nothing, {ONE_SOURCE: nothing}, answers, {"x": "b"}, "test")


def matrix_rate(device: torch.device, dtype: str, size: int) -> float:
    """Operations a second of a square product: the best of ten, after one that warms up."""
    one, other = (torch.randn(size, size, device=device, dtype=DTYPES[dtype]) for _ in range(2))
    took = []
    for _ in range(11):
        began = now(device)
        one @ other
        took.append(now(device) - began)
    return 2 * size**3 / min(took[1:])


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
