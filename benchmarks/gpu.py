"""The engine on one GPU through a replica's own door: one command, under 8 minutes, no network, no
files, from the checkout alone.

    PYTHONPATH=. python benchmarks/gpu.py [--only a b c d e] [--most 420] [--cpu]

It needs torch, transformers, jaxtyping, pydantic, safetensors, psutil, numpy and scipy, on Python
3.11 to 3.13; no ray, mlflow or duckdb. Random weights in the true shapes, made on the device, and
random prompts (`gpu_world`); what runs is `Replica.do` on tasks, without driver and journal.

- a: Llama-3.1-8B, bfloat16: the residual of 32 layers x 64 positions x 32 pairs.
- b: the same on prompts of 2,000 tokens, at the last 8 positions.
- c: GPT-2, float32 and bfloat16, prompts of 15 tokens: 144 heads at the last position x 5,000
  pairs; outputs are compared with the counterfactual.
- d: Qwen2.5-1.5B, bfloat16: a rotation (DAS) of 32 directions for each of 28 layers, at the last of
  32 tokens, 80 steps of 32 pairs, all in one company; then as many with arbitrary labels.
- e: tasks of a by the waves of today, and as rows were run before: each row an object, with its own
  copy of the keys and values before its patch, 64 in a wave.

Each line says the path, how many of some rows have the answer of the plain path, seconds of the
host and the device, the share of the rate of a large product that was measured before, and rows a
second. The share is of counted multiply-adds (of blocks, attention and head that rows need) over
the time of whole tasks. Captures are timed apart in a and b, and are no part of it; near-ties that
are decided again take time and count once. A workload whose time is up has run a sample of its
tasks, and says so. With `--cpu`, all of it in miniature, with counts of what a wave and a step do.

The last line is `share: `, the smallest share of its goal (a: 0.5 of the matrix rate, b: 0.35, c:
100,000 rows a second, d: 28 fits in 6 seconds), or with `--cpu` `ratio: `, that of e.
"""

import argparse
import gc
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from gpu_results import AgainstOld, Sweep, Trained
from gpu_workloads import (
    against_old,
    das,
    head_tasks,
    residual_tasks,
    sweep,
    wave_counts,
)
from gpu_world import build, drawn, matrix_rate, now, open_replica
from transformers import GPT2Config, LlamaConfig, PretrainedConfig, Qwen2Config

from raysearch.core.events import Encoded
from raysearch.core.fit_keys import FitKeys
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.replica import Replica

LETTERS = "abcde"
GOALS = {"a": 0.5, "b": 0.35, "c": 100_000.0, "d": 6.0}
PARTS = {"a": 0.25, "b": 0.1, "c": 0.06, "d": 0.1, "e": 0.1}
"""What part of all seconds a workload may take from when its replica is open (c: each dtype)."""
LEAST = 15.0
"""Seconds that must be left for a replica to be opened."""
FEW = 10
"""Pairs of a task of c where rows are run by a slower path, so that one ends in its time."""

Result = Sweep | Trained | AgainstOld


@dataclass(frozen=True, slots=True)
class Grid:
    """Pairs of prompts of so many tokens, at the last `positions`; waves, and tasks as a job has
    them, of at most `rows`."""

    tokens: int
    positions: int
    pairs: int
    rows: int

    def drawn(self, vocab: int) -> tuple[Encoded, ...]:
        """The pairs."""
        at = range(self.tokens - self.positions, self.tokens)
        return drawn(vocab, self.tokens, self.pairs, at)


@dataclass(frozen=True, slots=True)
class Scale:
    """The shapes and sizes of all workloads. `pairs_of_task`: of c, with all heads at most `rows`;
    `size`: of d's rotations; `product`: of the square product whose rate is measured."""

    llama: PretrainedConfig
    gpt2: PretrainedConfig
    qwen: PretrainedConfig
    a: Grid
    b: Grid
    c: Grid
    d: Grid
    pairs_of_task: int
    size: int
    recipe: FitKeys
    product: int


FULL = Scale(
    LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
    ),
    GPT2Config(),
    Qwen2Config(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    *(Grid(64, 64, 32, 1024), Grid(2000, 8, 32, 1024), Grid(15, 1, 5000, 8192)),
    *(Grid(32, 1, 160, 1024), 56, 32),
    FitKeys(steps=80, batch=32, validation=0.2),
    8192,
)
_SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MINIATURE = Scale(
    LlamaConfig(**_SMALL),
    GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=512, bos_token_id=0, eos_token_id=0),
    Qwen2Config(**_SMALL, tie_word_embeddings=True),
    *(Grid(16, 8, 64, 256), Grid(96, 4, 8, 64), Grid(15, 1, 60, 256), Grid(12, 1, 40, 256)),
    *(20, 4),
    FitKeys(steps=16, batch=8, validation=0.2),
    512,
)


def main() -> None:
    asked = _asked()
    if not asked.cpu and not torch.cuda.is_available():
        print("no GPU here: nothing was run; --cpu runs the script in miniature")
        return
    device = torch.device("cpu" if asked.cpu else "cuda")
    if asked.cpu:
        torch.set_num_threads(1)
    bench = Bench(device, MINIATURE if asked.cpu else FULL, asked.most, asked.cpu)
    print(f"commit {_commit()}, {_name(device)}, torch {torch.__version__}", flush=True)
    found: list[Result] = []
    for result in bench.run(set(asked.only)):
        found.append(result)
        print(result, flush=True)
    if asked.cpu:
        print("\n".join(bench.paths()))
    print(f"{time.perf_counter() - bench.began:.0f} s in all")
    print(last_line(found, asked.cpu))


def last_line(found: Sequence[Result], in_miniature: bool) -> str:
    """The ratio of e in miniature; else the smallest share of a goal."""
    if in_miniature:
        ratios = [of.ratio for of in found if isinstance(of, AgainstOld)]
        return f"ratio: {ratios[0]:.2f}" if ratios else "ratio: none, since e was not run"
    shares = reached(found)
    named = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    return f"share: {min(shares.values()):.2f} ({named})" if shares else "share: none was run"


def reached(found: Sequence[Result]) -> dict[str, float]:
    """The share of its goal that each workload reached; of c in the slower dtype."""
    shares: dict[str, float] = {}
    for of in found:
        if isinstance(of, AgainstOld):
            continue
        goal = GOALS[of.name]
        rate = of.rate if of.name == "c" else of.share
        share = goal / of.whole if isinstance(of, Trained) else rate / goal
        shares[of.name] = min(share, shares.get(of.name, float("inf")))
    return shares


class Bench:
    """Runs workloads on a device within `most` seconds."""

    def __init__(self, device: torch.device, scale: Scale, most: float, in_miniature: bool) -> None:
        self.began = time.perf_counter()
        self._device, self._scale, self._most = device, scale, most
        self._counts = in_miniature
        self._rates: dict[str, float] = {}

    def run(self, only: set[str]) -> Iterator[Result]:
        """Yields what comes of each workload."""
        if only & set("abe"):
            yield from self._of_llama(only)
            self._release()
        if "c" in only:
            for dtype in ("float32", "bfloat16"):
                yield from self._heads(dtype)
                self._release()
        if "d" in only:
            yield from self._das()

    def _of_llama(self, only: set[str]) -> Iterator[Result]:
        """a, e and b, which share a model; a and e share a replica."""
        if not self._has_time("a, b and e"):
            return
        model, rate = build(self._scale.llama, self._device, "bfloat16"), self._rate("bfloat16")
        if only & set("ae"):
            replica = self._open(model, "bfloat16", self._scale.a)
            tasks = residual_tasks(replica)
            if "a" in only:
                yield sweep("a", replica, tasks, self._until("a"), rate, True, self._counts)
            old = against_old("e", replica, tasks, self._until("e")) if "e" in only else None
            if old is not None:
                yield old
            elif "e" in only:
                print("e: left out, since this replica runs no waves")
            del replica
            self._release()
        if "b" in only and self._has_time("b"):
            replica = self._open(model, "bfloat16", self._scale.b)
            tasks = residual_tasks(replica)
            yield sweep("b", replica, tasks, self._until("b"), rate, True, self._counts)

    def _heads(self, dtype: str) -> Iterator[Result]:
        if not self._has_time(f"c, {dtype}"):
            return
        model, grid = build(self._scale.gpt2, self._device, dtype), self._scale.c
        replica = self._open(model, dtype, grid, components=("head",))
        size = self._scale.pairs_of_task if replica.opened.facts.path == "replay" else FEW
        tasks = head_tasks(replica, f"token_{grid.tokens - 1}", size)
        rate = self._rate(dtype)
        yield sweep("c", replica, tasks, self._until("c"), rate, False, self._counts)

    def _das(self) -> Iterator[Result]:
        if not self._has_time("d"):
            return
        scale, rate = self._scale, self._rate("bfloat16")
        model = build(scale.qwen, self._device, "bfloat16")
        replica = self._open(model, "bfloat16", scale.d, recipe=scale.recipe)
        if replica.opened.facts.path != "replay":
            print(f"d: left out, since it would take long on the path {replica.opened.facts.path}")
            return
        until = self._until("d")
        yield das("d", replica, scale.size, scale.recipe, until, rate, self._counts)

    def paths(self) -> Iterator[str]:
        """Yields a line for each dtype: the path that is taken, and counts of a wave."""
        for dtype in ("float32", "bfloat16", "float16"):
            model = build(self._scale.llama, self._device, dtype)
            replica = self._open(model, dtype, self._scale.a)
            task = residual_tasks(replica)[-1]
            replica.do(task)
            yield f"{dtype}: path {replica.opened.facts.path}{wave_counts(replica, task)}"

    def _open(
        self,
        model: torch.nn.Module,
        dtype: str,
        grid: Grid,
        recipe: FitKeys | None = None,
        components: Sequence[str] = ("residual",),
    ) -> Replica:
        settings = RunnerSettings(rows=grid.rows, tokens="auto", recipe=recipe)
        encoded = grid.drawn(model.config.vocab_size)
        return open_replica(model, dtype, encoded, settings, components)

    def _rate(self, dtype: str) -> float:
        if dtype not in self._rates:
            self._rates[dtype] = matrix_rate(self._device, dtype, self._scale.product)
            print(f"{dtype}: a product runs at {self._rates[dtype] / 1e12:.3g} TFLOP/s", flush=True)
        return self._rates[dtype]

    def _until(self, letter: str) -> float:
        """The time at which a workload begins no further task."""
        clock = now(self._device)
        return min(clock + PARTS[letter] * self._most, self.began + self._most)

    def _has_time(self, what: str) -> bool:
        has_time = time.perf_counter() - self.began < self._most - LEAST
        if not has_time:
            print(f"{what}: left out, the time is up", flush=True)
        return has_time

    def _release(self) -> None:
        """Gives back the memory of what nothing refers to."""
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=LETTERS, default=list(LETTERS))
    parser.add_argument("--most", type=float, default=420, help="seconds in all")
    parser.add_argument("--cpu", action="store_true", help="in miniature, on the CPU")
    return parser.parse_args()


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
