"""The engine on one GPU, against plain passes: one command, under 8 minutes, no network, no files.

    make install && .venv/bin/python benchmarks/gpu.py [--seconds 150] [--layers N] [--positions N] [--shared N]

Random weights in the shape of Llama-3.1-8B, bfloat16; the residual at all 32 layers x 64 positions of 32 pairs of random
tokens. `--shared`: so many first tokens are the same in all prompts (0: no row is free). `--layers`, `--positions`: only so
many, spread evenly. The engine takes its waves in random order for `--seconds`; where that is not all of them, it says so,
and the rest is extrapolated by the multiply-adds that they need. Steps that go cell by cell are timed on a stratified sample,
as in ablation.py; the share of the machine's own matrix rate is taken as in roofline.py.

In bfloat16, and with random weights, many rows are near-ties, which the engine's replica decides again one by one; here they
are not, and only those rows count as wrong whose argmax differs without being one. How far plain passes in another batch size
are from plain passes is shown beside, as the measure of what rounding does.

Where there is no GPU it says so, and is done. `--device cpu --tiny` runs the script itself on a tiny model.
"""

import argparse
import random
from dataclasses import dataclass

import torch
from ablation import Measured, Resumed, TwoPasses, moved, print_table, sampled, seconds_of
from grid import Agreement, Engine, Grid, flags, memory, spread
from roofline import Rates, Sizes, Work, work_of
from transformers import LlamaConfig, LlamaForCausalLM

from raysearch.engine.decide import NEAR_TIE
from raysearch.engine.network import LanguageModel
from raysearch.search.events import Ids

CONFIG = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
)
TINY = LlamaConfig(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=192,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.3,
)
TOKENS, PAIRS = 64, 32
ROUNDS = 3


@torch.inference_mode()
def main() -> None:
    asked = _asked()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing was run; --device cpu --tiny runs the script on a tiny model")
        return
    torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    network = LanguageModel(build(TINY if asked.tiny else CONFIG, device))
    grid = _grid(network, asked)
    table = sampled(network, grid, NEAR_TIE["bfloat16"])
    right = table[0].agreement.right
    noise = _noise(network, grid, table[0])
    engine = Engine(network, grid, asked.rows, NEAR_TIE["bfloat16"], shuffled=True)
    ran = _run(engine, Agreement(right, NEAR_TIE["bfloat16"]), asked.seconds)
    table.append(Measured("the engine", ran.agreement, grid.cells, asked.rows, ran.whole, ran.bytes))
    all_of_it = ran.waves == len(engine.todo)
    what = "all of the grid" if all_of_it else f"extrapolated by multiply-adds to {ran.whole:.0f} s for the grid"
    print(f"machine: {_name(device)}, torch {torch.__version__}")
    print(f"grid: {grid}, {len(engine.left_alone) / grid.size:.0%} free; prompts of {asked.tokens} tokens")
    print(
        f"engine: {ran.waves} of {len(engine.todo)} waves of {asked.rows} rows at most, {engine.seconds:.1f} s, "
        f"{engine.capturing:.1f} s of them captures: {what}"
    )
    print_table(table, grid, partly=not all_of_it)
    print(moved(network, grid, right))
    print(f"plain passes, but in another batch size: {noise}")
    print(f"pairs/s: {grid.size / ran.whole:.0f}; plain {grid.size / table[0].seconds:.0f}")
    print(
        f"memory: the model {network.model.get_memory_footprint() / 2**30:.2f} GiB, the engine {ran.bytes / 2**30:.2f} above it"
    )
    print(f"ratio to the pattern that resumes at the patched layer: {seconds_of(table, Resumed.name) / ran.whole:.1f}")
    flop = 2e-12 * ran.work.multiply_adds()
    print(f"rate: {flop / engine.seconds:.3g} TFLOP/s; the machine's own at these shapes {flop / ran.ideal:.3g}")
    print(f"share: {ran.ideal / engine.seconds:.2f}")
    print(f"ratio: {table[0].seconds / ran.whole:.1f}")


def build(config: LlamaConfig, device: torch.device, seed: int = 0) -> LlamaForCausalLM:
    """A model with random weights in bfloat16, made on the device itself."""
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model = model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, config.initializer_range, generator=generator)
    model.tie_weights()
    # Its frequencies are no parameters: computed, in float32.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    return model.eval().requires_grad_(False)


def _asked() -> argparse.Namespace:
    parser = flags(__doc__)
    parser.set_defaults(pairs=PAIRS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, for a test of the script")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a prompt")
    parser.add_argument("--shared", type=int, default=0, help="first tokens that are the same in all prompts")
    parser.add_argument("--seconds", type=float, default=150, help="of the engine's waves, at most")
    return parser.parse_args()


def _grid(network: LanguageModel, asked: argparse.Namespace) -> Grid:
    rng = random.Random("0.tokens")
    vocab = network.model.config.vocab_size

    def prompt(first: Ids = ()) -> Ids:
        return (*first, *(rng.randrange(vocab) for _ in range(asked.tokens - len(first))))

    shared = prompt()[: asked.shared]
    pairs = tuple((prompt(shared), prompt(shared)) for _ in range(asked.pairs))
    layers = spread(range(len(network.layers)), asked.layers)
    return Grid(pairs, layers, spread(range(asked.tokens), asked.positions))


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of the engine's waves. `work`: of those that were run, and of the captures; `ideal`: its seconds at the machine's rate;
    `whole`: seconds of the whole grid."""

    agreement: Agreement
    waves: int
    work: Work
    ideal: float
    whole: float
    bytes: int


def _run(engine: Engine, agreement: Agreement, budget: float) -> Ran:
    """The engine's waves, for `budget` seconds; the machine's rate is taken before, twice amid and after."""
    waves = 0
    with memory(engine.network.device) as peak:
        replay = engine.prepare()
        everything, work = work_of(engine, replay), work_of(engine, replay, waves=0)
        # Products at the shapes of the waves: they take no more memory than the waves themselves.
        rates = Rates(engine.network, everything.shapes)
        rates.measure()
        prepared, measured = engine.seconds, 1
        for wave, logits in engine.waves():
            waves += 1
            work.wave(Sizes.of(engine.network), replay, wave)
            for row, line in zip(wave, logits, strict=True):
                agreement.see(*engine.where[row], line)
            spent = engine.seconds - prepared
            if spent > budget:
                break
            if spent > budget * measured / ROUNDS:
                rates.measure()
                measured += 1
        rates.measure()
    for row, decision in engine.left_alone.items():
        agreement.see_free(row, engine.where[row], engine.network, decision)
    captures = work.multiply_adds("captures")
    scale = (everything.multiply_adds() - captures) / (work.multiply_adds() - captures)
    ideal = sum(rates.seconds(counted) for counted in work.phases.values())
    return Ran(agreement, waves, work, ideal, prepared + scale * (engine.seconds - prepared), peak.bytes)


def _noise(network: LanguageModel, grid: Grid, plain: Measured) -> Agreement:
    """One cell by plain passes in another batch size."""
    step, cell = TwoPasses(network, grid), next(iter(plain.agreement.right))
    step.size = max(1, plain.size // 2)
    agreement = Agreement({cell: plain.agreement.right[cell]}, plain.agreement.tolerance)
    for at, line in enumerate(step.cell(cell)):
        agreement.see(cell, at, line)
    return agreement


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
