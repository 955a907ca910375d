"""The engine on one GPU through a replica's own door: one command, under 8 minutes, no network, no
files, from the checkout alone.

    PYTHONPATH=. python benchmarks/gpu.py [--seconds 20] [--shapes gpt2 llama_1b llama_8b] [--cpu]

It needs torch, transformers, jaxtyping, pydantic, safetensors, psutil, numpy and scipy, on Python
3.11 to 3.13; no ray, mlflow or duckdb. A replica is built as a worker builds it: self-check,
tolerance, canonical decisions, meter. Random weights in the shapes of GPT-2, Llama-3.2-1B and
Llama-3.1-8B, made on the device; prompts of 15, 64 and 2,000 random tokens; in bfloat16 and in
float32; the residual in layers spread over the model, at tokens spread over the prompt. With random
weights near-ties are many: the share that is decided again is an upper one. `share` is counted
multiply-adds of the waves against the rate of a large product on this device in the same dtype.

`--cpu` runs it all in miniature. The last lines are the table, headed by the commit, to be kept in
RESULTS.md.
"""

import argparse
import random
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)

import raysearch as rs
from raysearch.causal import ONE_SOURCE
from raysearch.core.events import Block, Encoded, Failed, Measured, Task
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.predict import predict
from raysearch.engine.networks.network import Encoder, LanguageModel
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.rows import Row
from raysearch.engine.replica import Replica

GPT2 = {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 2048}
LLAMA = {
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
}
SHAPES: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(**GPT2, bos_token_id=0, eos_token_id=0),
    "llama_1b": LlamaConfig(
        **LLAMA,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
    ),
    "llama_8b": LlamaConfig(
        **LLAMA,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
    ),
}
TINY: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(**{**GPT2, "n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 512}, bos_token_id=0, eos_token_id=0),
    "llama_1b": LlamaConfig(
        **{**LLAMA, "vocab_size": 512, "num_key_value_heads": 2}, hidden_size=64, intermediate_size=128,
        num_hidden_layers=4, num_attention_heads=4,
    ),
}  # fmt: skip
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
TOKENS, SHORT = (15, 64, 2000), (15, 24, 40)
PAIRS, HELD = 16, 24
"""Pairs of a cell; rows that are held against the canonical computation."""


@dataclass(frozen=True)
class Drawn:
    """A model with random weights and pairs of random tokens, as a replica takes what was
    loaded."""

    model: PreTrainedModel
    dtype: str
    encoded: tuple[Encoded, ...]
    digest: str = "random weights"
    commit: None = None
    unused: tuple[()] = ()

    def open(self, pairs: Sequence[rs.Pair]) -> tuple[LanguageModel, Encoder]:
        """The model as a network; pairs are what was drawn."""
        return LanguageModel(self.model), lambda *_: self.encoded[: len(pairs)]

    def reinitialised(self, seed: int = 0) -> "Drawn":
        raise NotImplementedError("a benchmark asks for no control")


@dataclass(frozen=True, slots=True)
class Line:
    """What came of one shape. Times in seconds, of one wave; rates a second."""

    shape: str
    dtype: str
    tokens: int
    path: str
    check: float
    tolerance: float
    equal: str
    rows: int
    rate: float
    again: float
    host: float
    device: float
    launches: int
    share: float

    def __str__(self) -> str:
        return (
            f"| {self.shape} | {self.dtype} | {self.tokens} | {self.path} | {self.check:.1f} | "
            f"{self.tolerance:.2g} | {self.equal} "
            f"| {self.rows} | {self.rate:.0f} | {self.again:.1%} | {1000 * self.host:.1f} | "
            f"{1000 * self.device:.1f} "
            f"| {self.launches} | {self.share:.2f} |"
        )


HEAD = (
    "| shape | dtype | tokens | path | check s | tolerance | argmax as canonical | rows | rows/s | "
    "decided again | host ms a wave "
    "| device ms a wave | launches a wave | share of matrix rate |\n|" + "---|" * 14
)


def main() -> None:
    asked = _asked()
    if not asked.cpu and not torch.cuda.is_available():
        print("no GPU here: nothing was run; --cpu runs the script in miniature")
        return
    device = torch.device("cpu" if asked.cpu else "cuda")
    if asked.cpu:
        torch.set_num_threads(1)
    shapes, lengths = (TINY, SHORT) if asked.cpu else (SHAPES, TOKENS)
    began, lines = time.perf_counter(), []
    for dtype in DTYPES:
        rate = matrix_rate(device, DTYPES[dtype], 512 if asked.cpu else 8192)
        print(f"{dtype}: a product runs at {rate / 1e12:.3g} TFLOP/s", flush=True)
        for shape in [s for s in asked.shapes if s in shapes]:
            model = build(shapes[shape], device, DTYPES[dtype])
            for tokens in lengths:
                left = asked.most - (time.perf_counter() - began)
                if left < asked.seconds:
                    print(f"{shape} {dtype} {tokens}: left out, the time is up")
                    continue
                lines.append(measure(shape, model, dtype, tokens, asked, rate))
                print(lines[-1], flush=True)
            del model
            if device.type == "cuda":
                torch.cuda.empty_cache()
    print(
        f"\ncommit {_commit()}, {_name(device)}, torch {torch.__version__}, "
        f"{time.perf_counter() - began:.0f} s"
    )
    print(HEAD)
    print("\n".join(map(str, lines)))


def measure(
    shape: str,
    model: PreTrainedModel,
    dtype: str,
    tokens: int,
    asked: argparse.Namespace,
    rate: float,
) -> Line:
    """A replica's tasks for `asked.seconds`; then one wave by itself, timed and its launches
    counted."""
    encoded = drawn(model.config.vocab_size, tokens)
    device = model.device
    replica = Replica(
        Drawn(model, dtype, encoded), [_pair(e) for e in encoded], tuple(encoded[0].base_positions), ("x",), "gpu",
        settings=RunnerSettings(rows=asked.rows),
    )  # fmt: skip
    check = replica.usage().phases["check"]
    layers = replica.opened.facts.layers
    places = [
        rs.Intervention((rs.Unit(rs.Site(layer, "residual", position)),))
        for position in encoded[0].base_positions
        for layer in sorted({round(i * (layers - 1) / 5) for i in range(6)})
    ]
    random.Random("0.places").shuffle(places)
    block = Block("test", 0, tuple(e.index for e in encoded))
    replica.do(Task(0, "measure", tuple(places[:1]), (block,)))  # warms up
    spent, rows, again, done = 0.0, 0, 0, []
    size = max(1, asked.rows // len(encoded))
    for start in range(0, len(places), size):
        began = now(device)
        events = replica.do(
            Task(1 + start, "measure", tuple(places[start : start + size]), (block,))
        )
        spent += now(device) - began
        for event in events:
            assert not isinstance(event, Failed), event.message
            assert isinstance(event, Measured)
            rows, again = rows + event.rows, again + event.near_ties
            done.append(event)
        if spent > asked.seconds:
            break
    machine = replica._runner
    by_key = {place.key: place for place in places}
    answers = {
        build_row(pair, by_key[event.intervention], machine.hook_points): output[0]
        for event in done
        for pair, output in zip(encoded, event.outputs, strict=True)
    }
    held = random.Random("0.held").sample(list(answers), min(HELD, len(answers)))
    with torch.inference_mode():
        canonical = {row: predict(machine.plain.logits([row]))[0].id for row in held}
    same = sum(answers[row] == canonical[row] for row in held)
    host, whole, launches, work = wave(
        replica, [row for row in answers if not machine.executor.is_free(row)], asked.rows
    )
    return Line(
        shape, dtype, tokens, machine.executor.name, check, machine.tolerance, f"{same}/{len(held)}", rows, rows / spent,
        again / max(rows, 1), host, whole, launches, work / max(whole, 1e-9) / rate,
    )  # fmt: skip


def wave(replica: Replica, rows: Sequence[Row], most: int) -> tuple[float, float, int, float]:
    """Of the fullest batch that the path makes: seconds until the host is free, until the device
    is; launches; operations counted."""
    machine = replica._runner
    batch = max(machine.executor.batches(list(rows)), key=len)[:most]
    device = machine.network.device
    with torch.inference_mode():
        machine.executor.logits(batch)
        began = now(device)
        machine.executor.logits(batch)
        host = time.perf_counter() - began
        whole = now(device) - began
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
        with torch.profiler.profile(activities=kinds) as seen:
            machine.executor.logits(batch)
            now(device)
    names = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
    if device.type == "cuda":
        launches = sum(event.count for event in seen.key_averages() if event.key in names)
    else:
        launches = sum(
            event.count for event in seen.key_averages() if event.key.startswith("aten::")
        )
    return host, whole, launches, _operations(machine.network, machine.executor.name, batch)


def _operations(network: LanguageModel, path: str, batch: Sequence[Row]) -> float:
    """Two for each multiply-add of the linear layers: of tokens and layers from the patch on, where
    rows are replayed, and of one head."""
    block = sum(p.numel() for p in network.layers[0].parameters() if p.ndim == 2)
    config = network.model.config
    head = config.vocab_size * config.hidden_size
    total = 0.0
    for row in batch:
        layer, token = row.patches[0].point.layer, min(row.patches[0].tokens)
        layers, tokens = len(network.layers), len(row.base)
        total += (
            block
            * ((layers - 1 - layer) * (tokens - token) if path == "replay" else layers * tokens)
            + head
        )
    return 2 * total


def drawn(vocab: int, tokens: int) -> tuple[Encoded, ...]:
    """Pairs of random tokens, that share none; positions spread over the prompt, more of them near
    its end."""
    rng = random.Random(f"{tokens}.prompts")
    at = sorted(
        {0, tokens // 2, tokens - 12 if tokens > 12 else 1, tokens - 4, tokens - 2, tokens - 1}
    )
    positions = {f"token_{t}": (t,) for t in at}

    def prompt() -> tuple[int, ...]:
        return tuple(rng.randrange(vocab) for _ in range(tokens))

    return tuple(
        Encoded(
            i,
            prompt(),
            {ONE_SOURCE: prompt()},
            positions,
            {ONE_SOURCE: positions},
            {"base": (0,)},
            {"x": (1,)},
        )
        for i in range(PAIRS)
    )


def build(
    config: PretrainedConfig, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> PreTrainedModel:
    """A model with random weights, made on the device itself."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model = model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms, and biases
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                parameter.normal_(0.0, config.initializer_range, generator=generator)
    model.tie_weights()
    for module in (
        model.modules()
    ):  # frequencies and masks are no parameters: computed, as when the model is made
        if hasattr(module, "inv_freq"):
            module.__init__(config)
            module.to(device)
    return model.eval().requires_grad_(False)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of a square product: the best of five."""
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    took = []
    for _ in range(6):
        began = now(device)
        one @ other
        took.append(now(device) - began)
    return 2 * size**3 / min(took[1:])


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _pair(encoded: Encoded) -> rs.Pair:
    """What stands for a drawn pair where texts would."""
    nothing = rs.Input("tokens", {})
    return rs.Pair(
        encoded.index,
        nothing,
        {ONE_SOURCE: nothing},
        {"base": "a", ONE_SOURCE: "b"},
        {"x": "b"},
        "test",
    )


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", action="store_true", help="in miniature, on the CPU")
    parser.add_argument(
        "--seconds", type=float, default=12, help="of tasks, for each line of the table"
    )
    parser.add_argument(
        "--most",
        type=float,
        default=420,
        help="seconds in all, after which no further line is begun",
    )
    parser.add_argument("--rows", type=int, default=64, help="of a forward pass")
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES), default=list(SHAPES))
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
