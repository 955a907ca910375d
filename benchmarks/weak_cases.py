"""The cells where the engine saves least, one by one, side by side with pyvene 0.1.8 and with a
hand-written run that resumes at the patched layer.

    OMP_NUM_THREADS=1 python benchmarks/weak_cases.py [--pairs 16] [--layers 0 15 29] [--tokens 10 128]

SmolLM2-135M, float32, one thread, random prompts that share no token, so that no row is free; one
cell each: its layer, first patched token and component, on all pairs, as waves of swaps, which is
how a job runs them. Captures are left out but where a cell says so; a cell of two tokens answers
with two, after the rows on which a replica compares both ways of the second. Processor seconds, the
better of two rounds each. `near`: rows that were too close to call, and so were run once more one
by one; the others' ways do not do that, and random prompts have more of them than texts. `bound`:
multiply-adds of pyvene's two forward passes (logits of every token) over those that any method must
do that runs whole blocks: the base's captures are given, tokens from the patch on and layers above
it are run, and one head; with captures, also both runs. (Within the first and the last block
a method could leave out a few products more.) That bound takes each multiply-add to cost the same,
which holds for big products alone. So `products` are the seconds that the matrix products of the
bound take by themselves, with the rows that a wave has. The last line is the worst share of a
bound, the one before the worst share of the products.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyvene
import torch
from grid import MODEL
from torch import Tensor
from transformers import PreTrainedModel

from raysearch.core.model_source import ModelSource
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.evaluate import Evaluator
from raysearch.engine.execution.evaluate_swaps import TRIED, SwapEvaluator
from raysearch.engine.execution.executors import PlainExecutor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.loading.load import load
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.patching.build_swaps import swaps_of
from raysearch.engine.patching.rows import swap

PYVENE = {
    "residual": "block_output",
    "head": "attention_value_output",
    "query": "query_output",
    "key": "key_output",
    "value": "value_output",
    "mlp_output": "mlp_output",
}
"""pyvene's name of each component."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell. `length`: tokens of a prompt; `captures`: whether they are timed; `answer`:
    tokens."""

    length: int
    token: int
    layer: int
    component: str = "residual"
    captures: bool = False
    answer: int = 1


def cells(layers: Sequence[int], lengths: Sequence[int]) -> list[Cell]:
    """The weakest cells: each layer at an early, a middle and a late token; in the middle layer
    each component, one with captures, one of two tokens."""
    grid = [
        Cell(length, token, layer)
        for length in lengths
        for layer in layers
        for token in (1, length // 2, length - 1)
    ]
    middle, length = layers[len(layers) // 2], lengths[0]
    parts = [Cell(length, 1, middle, part) for part in PYVENE if part != "residual"]
    captured = [Cell(length, length - 1, layer, captures=True) for layer in layers]
    return [
        *grid,
        *parts,
        Cell(length, 1, layers[0], "value"),
        *captured,
        Cell(length, 1, middle, answer=2),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 15, 29])
    parser.add_argument("--tokens", type=int, nargs="+", default=[10, 128, 512])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = load(ModelSource(str(MODEL))).model
    shares, of_products = [], []
    print(
        "length, token, layer, component: products s, ours s, resumed s, pyvene s | "
        "share of products, to resumed, to pyvene, bound, share of it, near"
    )
    for cell in cells(asked.layers, asked.tokens):
        count = max(2, min(asked.pairs, 8192 // cell.length // 4))
        draw = torch.Generator().manual_seed(cell.length)
        ids = torch.randint(5000, 40000, (2, count, cell.length), generator=draw)
        near: list[int] = []
        ours = _ours(model, cell, ids, near)
        ways = (ours, _resumed(model, cell, ids), _pyvene(model, cell, ids))
        taken, answers = zip(*(_best(way) for way in ways), strict=True)
        for name, answer in (("resumed", answers[1]), ("pyvene", answers[2])):
            same = (answers[0] == answer).float().mean()
            assert same >= 0.9, f"{cell}: {name} has other answers ({same:.0%} equal)"
        own, resumed, theirs = taken
        bound, products = _bound(model, cell), _products(model, cell, count)
        shares.append(theirs / own / bound)
        of_products.append(products / own)
        print(
            f"{cell.length}, {cell.token}, {cell.layer}, {cell.component}"
            f"{', with captures' * cell.captures}{', two tokens' * (cell.answer - 1)}: "
            f"{products:.3f}, {own:.3f}, {resumed:.3f}, {theirs:.3f} | {of_products[-1]:.2f}, "
            f"{resumed / own:.2f}, {theirs / own:.2f}, {bound:.2f}, {shares[-1]:.2f}, {near[-1]}",
            flush=True,
        )
    print(f"share of products: {min(of_products):.2f}")
    print(f"share: {min(shares):.2f}")


def _best(way: tuple[Callable[[], object], Callable[[object], Tensor]]) -> tuple[float, Tensor]:
    """(seconds, answers): the better of two rounds, after one that warms up. What a way prepares is
    not timed."""
    prepare, run = way
    run(prepare())
    seconds = []
    for _ in range(2):
        given = prepare()
        began = time.process_time()
        answers = run(given)
        seconds.append(time.process_time() - began)
    return min(seconds), answers


Way = tuple[Callable[[], object], Callable[[object], Tensor]]


def _ours(model: PreTrainedModel, cell: Cell, ids: Tensor, near: list[int]) -> Way:
    """By a replica's waves; adds to `near` how many rows were too close to call."""
    network = LanguageModel(model)
    hook_points = Components(network)
    bases, sources = ([tuple(row) for row in side.tolist()] for side in ids)
    rows = [
        swap(base, source, cell.layer, (cell.token,), cell.component)
        for base, source in zip(bases, sources, strict=True)
    ]
    swaps = swaps_of(rows)

    def prepare() -> object:
        limit = RowLimit(64)
        tolerance = NEAR_TIE["float32"]
        cache = ActivationCache(network, hook_points, limit, tolerance, 2**33, keys=True)
        executor = ReplayExecutor(network, hook_points, cache)
        executor.want([cell.component])
        plain = PlainExecutor(network, hook_points)
        evaluator = Evaluator(executor, plain, cache, limit, tolerance)
        waves = SwapEvaluator(evaluator, executor, tolerance)
        if not cell.captures:  # makes captures, templates, and the tries of a second token
            for _ in range(-(-TRIED // len(rows)) if cell.answer > 1 else 1):
                waves.measure(swaps, cell.answer)
        return waves

    def run(waves: object) -> Tensor:
        assert isinstance(waves, SwapEvaluator)
        found = waves.measure(swaps, cell.answer)
        assert not found.failed.any()
        near.append(int(found.near.sum()))
        return torch.from_numpy(found.ids)

    return prepare, run


def _module(model: PreTrainedModel, cell: Cell) -> tuple[torch.nn.Module, bool]:
    """The module of a cell, and whether its input is patched."""
    block = model.model.layers[cell.layer]
    attention = block.self_attn
    found = {
        "residual": block,
        "head": attention.o_proj,
        "query": attention.q_proj,
        "key": attention.k_proj,
        "value": attention.v_proj,
        "mlp_output": block.mlp,
    }
    return found[cell.component], cell.component == "head"


def _resumed(model: PreTrainedModel, cell: Cell, ids: Tensor) -> Way:
    """By hand, as causalab does it: all tokens again, from the patched block on."""
    core, (module, is_input) = model.model, _module(model, cell)

    @torch.inference_mode()
    def capture(given: Tensor) -> tuple[Tensor, Tensor]:
        kept: dict[str, Tensor] = {}
        handles = [
            core.layers[cell.layer].register_forward_pre_hook(
                lambda _m, a: kept.update(before=a[0])
            )
        ]
        if is_input:
            handles.append(
                module.register_forward_pre_hook(
                    lambda _m, a: kept.update(value=a[0][:, cell.token])
                )
            )
        else:
            handles.append(
                module.register_forward_hook(
                    lambda _m, _a, out: kept.update(value=out[:, cell.token])
                )
            )
        core(input_ids=given, use_cache=False)
        for handle in handles:
            handle.remove()
        return kept["before"], kept["value"].clone()

    @torch.inference_mode()
    def run(given: object) -> Tensor:
        before, value = (capture(ids[0])[0], capture(ids[1])[1]) if given is None else given  # type: ignore[misc]

        def write(there: Tensor) -> Tensor:
            there = there.clone()
            there[:, cell.token] = value
            return there

        if is_input:
            handle = module.register_forward_pre_hook(lambda _m, a: (write(a[0]), *a[1:]))
        else:
            handle = module.register_forward_hook(lambda _m, _a, out: write(out))
        answers: list[Tensor] = []
        hidden = before
        while True:
            at = torch.arange(hidden.shape[1])[None]
            rotary, x = core.rotary_emb(hidden, at), hidden
            for block in core.layers[cell.layer :]:
                x = block(x, attention_mask=None, position_ids=at, position_embeddings=rotary)
            answers.append(model.lm_head(core.norm(x[:, -1])).argmax(-1))
            if len(answers) == cell.answer:
                break
            handle.remove()
            longer = torch.cat((ids[0], torch.stack(answers, 1)), 1)
            hidden = capture(longer)[0]
            handle = module.register_forward_hook(lambda _m, _a, out: write(out))
        handle.remove()
        return torch.stack(answers, 1)

    return (lambda: None if cell.captures else (capture(ids[0])[0], capture(ids[1])[1])), run


def _pyvene(model: PreTrainedModel, cell: Cell, ids: Tensor) -> Way:
    """As its documentation shows: a source run and a base run, whole."""
    config = pyvene.IntervenableConfig(
        [
            {
                "layer": cell.layer,
                "component": PYVENE[cell.component],
                "intervention_type": pyvene.VanillaIntervention,
            }
        ]
    )
    intervenable = pyvene.IntervenableModel(config, model)
    intervenable.set_device("cpu")

    def run(_given: object) -> Tensor:
        base, answers = ids[0], []
        for _ in range(cell.answer):
            _, out = intervenable(
                {"input_ids": base}, [{"input_ids": ids[1]}], {"sources->base": cell.token}
            )
            answers.append(out.logits[:, -1].argmax(-1))
            base = torch.cat((base, answers[-1][:, None]), 1)
        return torch.stack(answers, 1)

    return (lambda: None), torch.inference_mode()(run)


@dataclass(frozen=True, slots=True)
class Step:
    """What any method must run of each pair: `blocks` blocks on `tokens` tokens, then perhaps the
    head."""

    tokens: int
    blocks: int
    head: bool


def _needed(model: PreTrainedModel, cell: Cell) -> list[Step]:
    layers = len(model.model.layers)
    above = layers - cell.layer - (cell.component == "residual")
    runs = [layers, cell.layer + 1] if cell.captures else []
    return [
        *(Step(cell.length, blocks, head=False) for blocks in runs),
        Step(cell.length - cell.token, above, head=True),
        *[Step(1, above, head=True)] * (cell.answer - 1),
    ]


def _bound(model: PreTrainedModel, cell: Cell) -> float:
    config, layers = model.config, len(model.model.layers)
    block = sum(p.numel() for p in model.model.layers[0].parameters() if p.ndim == 2)
    head = config.vocab_size * config.hidden_size
    theirs = sum(2 * cell.length + at for at in range(cell.answer)) * (layers * block + head)
    needed = _needed(model, cell)
    ours = sum(step.tokens * step.blocks * block + step.head * head for step in needed)
    return float(theirs / ours)


@torch.inference_mode()
def _products(model: PreTrainedModel, cell: Cell, pairs: int) -> float:
    """Seconds of the matrix products of `_needed` alone: the better of two rounds, after one that
    warms up."""
    linear = [
        [part for part in block.modules() if isinstance(part, torch.nn.Linear)]
        for block in model.model.layers
    ]
    seconds = []
    for _ in range(3):
        taken = 0.0
        for step in _needed(model, cell):
            rows = {
                part.in_features: torch.randn(pairs * step.tokens, part.in_features)
                for part in linear[0]
            }
            last = torch.randn(pairs, model.config.hidden_size)
            began = time.process_time()
            for block in linear[len(linear) - step.blocks :]:
                for part in block:
                    part(rows[part.in_features])
            if step.head:
                model.lm_head(last)
            taken += time.process_time() - began
        seconds.append(taken)
    return min(seconds[1:])


if __name__ == "__main__":
    main()
