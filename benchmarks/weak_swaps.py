"""Swaps on a language model: the cells of the groups `swaps` and `prefix` of `weak_cases.py`.

Ours are the waves of a replica. The resume runs all tokens again from the patched block on, with
activations of each distinct input that it captured once. pyvene runs base and source of each row
whole, as its documentation shows.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyvene
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from weak_sides import Measured, Product, Way, Work, best, measured, same_answers, through

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.evaluate import Evaluator
from raysearch.engine.execution.evaluate_swaps import TRIED, SwapEvaluator
from raysearch.engine.execution.executors import PlainExecutor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.execution.replay_executor import ReplayExecutor
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

TOKENS = 2048
"""Most tokens of the bases of a cell."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell. `length`: tokens of a prompt; `captures`: whether they are timed; `answer`: tokens;
    `shared`: how many first tokens all prompts have in common, if every source is swapped into
    every base (None: each source into its own base, and nothing in common)."""

    length: int
    token: int
    layer: int
    component: str = "residual"
    captures: bool = False
    answer: int = 1
    shared: int | None = None

    def __str__(self) -> str:
        return (
            f"{self.length}, {self.token}, {self.layer}, {self.component}"
            f"{', with captures' * self.captures}{', two tokens' * (self.answer - 1)}"
        )


@dataclass(frozen=True, slots=True)
class Prompts:
    """The ids of the distinct bases and sources of a cell, and which of them each row has."""

    bases: Tensor
    sources: Tensor
    base: Tensor
    source: Tensor

    @property
    def rows(self) -> int:
        return len(self.base)


def swap_cells(layers: Sequence[int], lengths: Sequence[int]) -> list[Cell]:
    """Returns the weakest cells: each layer at an early and a late token, of the shortest prompts
    at a middle one; in the middle layer each component, and two tokens; each layer with its
    captures."""
    grid = [
        Cell(length, token, layer)
        for length in lengths
        for layer in layers
        for token in (1, length // 2, length - 1)
        if length == lengths[0] or token != length // 2
    ]
    middle, length = layers[len(layers) // 2], lengths[0]
    parts = [Cell(length, 1, middle, part) for part in PYVENE if part != "residual"]
    parts.append(Cell(length, 1, layers[0], "value"))
    captured = [Cell(length, length - 1, layer, captures=True) for layer in layers]
    every = [*grid, *parts, *captured, Cell(length, 1, middle, answer=2)]
    return list(dict.fromkeys(every))


def prefix_cells(layers: Sequence[int], lengths: Sequence[int]) -> list[Cell]:
    """Returns cells whose prompts share their first half: at the last token in the middle layer;
    where prompts are short also at the first token after that half in the first layer, and at the
    last one with captures."""
    middle = layers[len(layers) // 2]
    cells = []
    for length in lengths:
        half = length // 2
        late = Cell(length, length - 1, middle, shared=half)
        cells += [late]
        if length <= TOKENS // 16:
            cells += [Cell(length, half, layers[0], shared=half), replace(late, captures=True)]
    return cells


def measure_swaps(model: PreTrainedModel, cells: Sequence[Cell], pairs: int) -> Iterator[Measured]:
    """Yields what each cell costs, on at most so many pairs, or sources that share a base."""
    for cell in cells:
        prompts, near = _prompts(cell, pairs), [0]
        sides = (_ours(model, cell, prompts, near), _resumed(model, cell, prompts))
        taken, answers = zip(*map(best, (*sides, _pyvene(model, cell, prompts))), strict=True)
        name = str(cell)
        if cell.shared is not None:
            bases = len(prompts.bases)
            name += f", first {cell.shared} shared, {bases} base{'s' * (bases > 1)}"
        same_answers(name, answers)
        yield measured(name, _work(model, cell, prompts), taken, near=near[-1])


def _prompts(cell: Cell, pairs: int) -> Prompts:
    """Draws random prompts: of pairs, or of sources for all of one or two bases."""
    draw = torch.Generator().manual_seed(cell.length)
    count = max(2, min(pairs, TOKENS // cell.length))
    bases = count
    if cell.shared is not None:
        bases = 2 if 2 * count * cell.length <= TOKENS else 1
    ids = torch.randint(5000, 40000, (2, count, cell.length), generator=draw)
    if cell.shared is None:
        return Prompts(ids[0], ids[1], torch.arange(count), torch.arange(count))
    ids[:, :, : cell.shared] = ids[0, 0, : cell.shared].clone()
    every = torch.cartesian_prod(torch.arange(bases), torch.arange(count))
    return Prompts(ids[0, :bases], ids[1], *every.unbind(1))


def _ours(model: PreTrainedModel, cell: Cell, prompts: Prompts, near: list[int]) -> Way:
    """By a replica's waves; adds to `near` how many rows were too close to call."""
    network = LanguageModel(model)
    hook_points = Components(network)
    bases, sources = (
        [tuple(row) for row in of.tolist()] for of in (prompts.bases, prompts.sources)
    )
    rows = [
        swap(bases[base], sources[source], cell.layer, (cell.token,), cell.component)
        for base, source in zip(prompts.base, prompts.source, strict=True)
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

    return (prepare if cell.captures else functools.cache(prepare)), run


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


def _resumed(model: PreTrainedModel, cell: Cell, prompts: Prompts) -> Way:
    """By hand, as causalab does it: all tokens again, from the patched block on."""
    core = model.model

    def both() -> tuple[Tensor, Tensor]:
        """The block's input of each row's base, and the value of its source."""
        before = _captured(model, cell, prompts.bases)[0]
        value = _captured(model, cell, prompts.sources)[1]
        if cell.shared is None:
            return before, value
        return before[prompts.base], value[prompts.source]

    @torch.inference_mode()
    def run(given: object) -> Tensor:
        given = both() if given is None else given
        assert isinstance(given, tuple)
        hidden, value = given
        answers: list[Tensor] = []
        while True:
            at = torch.arange(hidden.shape[1])[None]
            rotary, handle = core.rotary_emb(hidden, at), _writing(model, cell, value)
            for block in core.layers[cell.layer :]:
                hidden = block(
                    hidden, attention_mask=None, position_ids=at, position_embeddings=rotary
                )
            handle.remove()
            answers.append(model.lm_head(core.norm(hidden[:, -1])).argmax(-1))
            if len(answers) == cell.answer:
                return torch.stack(answers, 1)
            longer = torch.cat((prompts.bases[prompts.base], torch.stack(answers, 1)), 1)
            hidden = _captured(model, cell, longer)[0]

    return (lambda: None) if cell.captures else functools.cache(both), run


@torch.inference_mode()
def _captured(model: PreTrainedModel, cell: Cell, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The input of the patched block at all tokens, and the patched activation."""
    kept: dict[str, Tensor] = {}
    module, is_input = _module(model, cell)
    block = model.model.layers[cell.layer]
    before = block.register_forward_pre_hook(lambda _m, a: kept.update(before=a[0]))
    if is_input:
        keep = module.register_forward_pre_hook(
            lambda _m, a: kept.update(value=a[0][:, cell.token])
        )
    else:
        keep = module.register_forward_hook(
            lambda _m, _a, out: kept.update(value=out[:, cell.token])
        )
    model.model(input_ids=ids, use_cache=False)
    for handle in (before, keep):
        handle.remove()
    return kept["before"], kept["value"].clone()


def _writing(model: PreTrainedModel, cell: Cell, value: Tensor) -> RemovableHandle:
    """Writes the value wherever the patched module runs, until the handle is removed."""
    module, is_input = _module(model, cell)

    def write(there: Tensor) -> Tensor:
        there = there.clone()
        there[:, cell.token] = value
        return there

    if is_input:
        return module.register_forward_pre_hook(lambda _m, a: (write(a[0]), *a[1:]))
    return module.register_forward_hook(lambda _m, _a, out: write(out))


def _pyvene(model: PreTrainedModel, cell: Cell, prompts: Prompts) -> Way:
    """As its documentation shows: a source run and a base run of each row, whole."""
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
    bases, sources = prompts.bases[prompts.base], prompts.sources[prompts.source]

    def run(_given: object) -> Tensor:
        base, answers = bases, []
        for _ in range(cell.answer):
            _, out = intervenable(
                {"input_ids": base}, [{"input_ids": sources}], {"sources->base": cell.token}
            )
            answers.append(out.logits[:, -1].argmax(-1))
            base = torch.cat((base, answers[-1][:, None]), 1)
        return torch.stack(answers, 1)

    return (lambda: None), torch.inference_mode()(run)


def _work(model: PreTrainedModel, cell: Cell, prompts: Prompts) -> Work:
    blocks, head = model.model.layers, [Product(model.lm_head, prompts.rows)]
    rows, length, more = prompts.rows, cell.length, range(1, cell.answer)
    above = blocks[cell.layer + (cell.component == "residual") :]
    from_patch = blocks[cell.layer :]
    needed = [*through(above, rows * (length - cell.token)), *head]
    resumed = [*through(from_patch, rows * length), *head]
    theirs = []
    for at in range(cell.answer):
        theirs += through([*blocks, model.lm_head], rows * (2 * length + at))
    for at in more:
        needed += [*through(above, rows), *head]
        resumed += [
            *through(blocks, rows * (length + at)),
            *through(from_patch, rows * (length + at)),
            *head,
        ]
    if cell.captures:
        inputs, shared = len(prompts.bases) + len(prompts.sources), cell.shared or 0
        own = length - shared
        needed += through(blocks, shared + len(prompts.bases) * own)
        needed += through(blocks[: cell.layer + 1], len(prompts.sources) * own)
        resumed += through(blocks, inputs * length)
    return Work(needed, resumed, theirs)
