"""What each saving of the engine is worth: the same grid with one more of them at a time.

    make install && .venv/bin/python benchmarks/ablation.py [--half]

SmolLM2-135M, residual, all 30 layers x positions of a 24-token template, 64 pairs, float32. Steps
that walk the grid cell by cell are timed on a seeded sample, one cell from each stratum of layers
and positions, each in the batch size that is best for it, and extrapolated; what they make once for
all cells is counted once. Steps alternate: a third of the sample each, three times over. Then the
engine: without its free rows left out, at every third position (the middle ones of threes, at which
what is linear in the position has its mean; waves of several positions have nothing to do with each
other), extrapolated; and as it is, whole.

"+ resume at the patched layer" is the pattern of the newest causalab. At 64 pairs one cell fills a
batch of 64 rows by itself, so that waves add little; `--pairs 4` (a first look of a sequential
test) shows them. `--half`: positions in the second half only, and prompts that differ from their
first token on, so that no row is free. Memory is the most that a step takes above what the process
had before it, its captures included. The last line is the ratio of that pattern to the engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from grid import Agreement, Cell, Engine, Grid, best_size, memory, now, on_template
from torch import Tensor, nn
from transformers import PreTrainedModel

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.memory import RowLimit, capture_bytes
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.patching.rows import Row

ROUNDS = 3


class Step:
    """A way to do one cell after the other, `size` pairs a batch. It is for models in the form of
    Llama."""

    name: ClassVar[str]

    def __init__(self, network: LanguageModel, grid: Grid) -> None:
        self.network, self.grid = network, grid
        self.model: PreTrainedModel = network.model
        self.size = len(grid.pairs)
        self.bases, self.sources = grid.ids(0, network.device), grid.ids(1, network.device)

    def prepare(self) -> None:
        """What is made once for all cells."""

    def forget(self) -> None:
        """Lets go of it."""

    def batch(self, cell: Cell, pairs: slice) -> Tensor:
        """The logits at the answer of these pairs."""
        raise NotImplementedError

    def cell(self, cell: Cell) -> Tensor:
        parts = []
        for start in range(0, len(self.grid.pairs), self.size):
            parts.append(self.batch(cell, slice(start, start + self.size)))
            parts[-1].argmax(-1)
        return torch.cat(parts)


class TwoPasses(Step):
    """The source's run, read by a hook, then the base's, written by a hook; all logits."""

    name = "plain two passes"
    keep: ClassVar[dict[str, int]] = {}

    def batch(self, cell: Cell, pairs: slice) -> Tensor:
        layer, token = cell
        lent: list[Tensor] = []
        handle = self.network.layers[layer].register_forward_hook(
            lambda *a: lent.append(_bare(a[-1])[:, token].clone())
        )
        self.model(input_ids=self.sources[pairs], use_cache=False)
        handle.remove()
        return self.patched(cell, pairs, lent[0])

    def patched(self, cell: Cell, pairs: slice, lent: Tensor) -> Tensor:
        def write(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
            _bare(output)[:, cell[1]] = lent

        handle = self.network.layers[cell[0]].register_forward_hook(write)
        logits: Tensor = self.model(
            input_ids=self.bases[pairs], use_cache=False, **self.keep
        ).logits[:, -1]
        handle.remove()
        return logits


class SharedSource(TwoPasses):
    """The sources' runs once, their residuals kept at every layer."""

    name = "+ shared source run"

    def prepare(self) -> None:
        self.lent = _residuals(self.network, self.sources, self.size)

    def forget(self) -> None:
        del self.lent

    def batch(self, cell: Cell, pairs: slice) -> Tensor:
        return self.patched(cell, pairs, self.lent[cell[0], pairs, cell[1]])


class HeadAtAnswer(SharedSource):
    """The head at the answer's token alone."""

    name = "+ head at the answer only"
    keep: ClassVar[dict[str, int]] = {"logits_to_keep": 1}


class Resumed(Step):
    """From the base's residual at the patched layer on, all tokens, with the model's own blocks."""

    name = "+ resume at the patched layer"

    def prepare(self) -> None:
        self.lent = _residuals(self.network, self.sources, self.size)
        self.base = _residuals(self.network, self.bases, self.size)
        self.at = torch.arange(self.bases.shape[1], device=self.network.device)[None]
        self.angles = self.model.model.rotary_emb(self.base[0, :1], self.at)

    def forget(self) -> None:
        del self.lent, self.base

    def batch(self, cell: Cell, pairs: slice) -> Tensor:
        layer, token = cell
        hidden = self.base[layer, pairs].clone()
        hidden[:, token] = self.lent[layer, pairs, token]
        for block in self.network.layers[layer + 1 :]:
            # Without a mask, torch's own causal attention, as in the model's own forward pass
            # without padding.
            hidden = _bare(
                block(
                    hidden,
                    attention_mask=None,
                    position_ids=self.at,
                    position_embeddings=self.angles,
                    use_cache=False,
                )
            )
        logits: Tensor = self.model.lm_head(self.model.model.norm(hidden[:, -1]))
        return logits


class TokenSuffix(Step):
    """The engine's replay, one cell at a time: from the patched token on, on the base's keys and
    values."""

    name = "+ token suffix, base's keys/values"

    def prepare(self) -> None:
        taps = Components(self.network)
        limit, kept = RowLimit(len(self.grid.pairs)), capture_bytes(self.network.device)
        captures = ActivationCache(self.network, taps, limit, 0.0, kept, keys=True)
        self.path = ReplayExecutor(self.network, taps, captures)
        list(
            self.path.batches(self.grid.rows((self.grid.layers[0], self.grid.tokens[0])))
        )  # says what is wanted
        captures.runs(Row(ids) for pair in self.grid.pairs for ids in pair)

    def forget(self) -> None:
        del self.path

    def batch(self, cell: Cell, pairs: slice) -> Tensor:
        return self.path.logits(self.grid.rows(cell)[pairs])


STEPS = (TwoPasses, SharedSource, HeadAtAnswer, Resumed, TokenSuffix)
WHOLE = ("+ waves of several cells", "+ identity shortcut: the engine")


@dataclass(slots=True)
class Measured:
    """One line of the table. `seconds`: of the whole grid, extrapolated where `cells` of it were
    run."""

    name: str
    agreement: Agreement
    cells: int
    size: int
    seconds: float = 0.0
    bytes: int = 0
    preparing: list[float] = field(default_factory=list)
    working: float = 0.0

    def extrapolate(self, grid: Grid) -> None:
        self.seconds = (
            sum(self.preparing) / len(self.preparing) + self.working / self.cells * grid.cells
        )


@torch.inference_mode()
def main() -> None:
    asked, _, network, grid = on_template(__doc__)
    table = sampled(network, grid, NEAR_TIE["float32"])
    right = table[0].agreement.right
    middles = Grid(
        grid.pairs, grid.layers, grid.tokens[1::3] if len(grid.tokens) % 3 == 0 else grid.tokens
    )
    for name, part, free in zip(WHOLE, (middles, grid), (False, True), strict=True):
        engine = Engine(network, part, asked.rows, NEAR_TIE["float32"], free=free)
        table.append(whole(name, engine, Agreement(right, NEAR_TIE["float32"]), grid))
    print(f"grid: {grid}")
    print_table(table, grid)
    print(moved(network, grid, right))
    print(f"ratio: {seconds_of(table, Resumed.name) / table[-1].seconds:.1f}")


def sampled(network: LanguageModel, grid: Grid, tolerance: float) -> list[Measured]:
    """The steps that go cell by cell, alternating; the first one's logits are held to be right."""
    sample, right, table = grid.sample(), {}, []
    steps = [step(network, grid) for step in STEPS]
    for step in steps:
        step.prepare()
        step.size = best_size(
            lambda size, step=step: _one(step, size), len(grid.pairs), network.device
        )
        step.forget()
        table.append(Measured(step.name, Agreement(right, tolerance), len(sample), step.size))
    for part in range(ROUNDS):
        for step, line in zip(steps, table, strict=True):
            _round(step, line, sample[part::ROUNDS])
    for line in table:
        line.extrapolate(grid)
    return table


def whole(name: str, engine: Engine, agreement: Agreement, grid: Grid) -> Measured:
    """The engine, on all of its own grid; extrapolated where that is a part of `grid`, the captures
    counted once."""
    with memory(engine.network.device) as peak:
        engine.prepare()
        for wave, logits in engine.waves():
            for row, line in zip(wave, logits, strict=True):
                agreement.see(*engine.where[row], line)
    for row, decision in engine.left_alone.items():
        agreement.see_free(row, engine.where[row], engine.network, decision)
    seconds = (
        engine.capturing + (engine.seconds - engine.capturing) * grid.cells / engine.grid.cells
    )
    return Measured(name, agreement, engine.grid.cells, engine.limit, seconds, peak.bytes)


def print_table(table: Sequence[Measured], grid: Grid, partly: bool = False) -> None:
    """Seconds, how many times faster than the step before and than the first, memory, agreement
    with the first.

    `partly`: the last line was not run whole, and may have missed rows of the sample.
    """
    print(
        f"{'':36} {'batch':>5} {'cells run':>9} {'seconds':>9} {'step':>6} {'in all':>7} "
        f"{'MiB':>6}  max |d logit|"
    )
    before = table[0].seconds
    for line in table:
        missed = len(line.agreement.right) * len(grid.pairs) - line.agreement.rows
        whole = line.cells == grid.cells and not (partly and line is table[-1])
        assert not (whole and missed), "every row of the sample is looked at"
        print(
            f"{line.name:36} {line.size:5} {line.cells:9} {line.seconds:9.1f} "
            f"{before / line.seconds:6.2f} "
            f"{table[0].seconds / line.seconds:7.1f} {line.bytes / 2**20:6.0f}  {line.agreement}"
        )
        before = line.seconds


def moved(network: LanguageModel, grid: Grid, right: dict[Cell, Tensor]) -> str:
    """How much the patches change at all, without which agreement would mean little."""
    base = torch.cat([network.plain(ids)[None].cpu() for ids, _ in grid.pairs])
    far = torch.stack([(logits - base).abs().amax(-1) for logits in right.values()])
    still = float((far < 1e-3).float().mean())
    return f"patches move a logit by {float(far.mean()):.2g} on average over the sampled rows, by less than 0.001 on {still:.0%}"


def seconds_of(table: Sequence[Measured], name: str) -> float:
    return next(line.seconds for line in table if line.name == name)


def _round(step: Step, line: Measured, cells: Sequence[Cell]) -> None:
    device = step.network.device
    vocab = step.model.get_output_embeddings().out_features
    # Filled, so that it is resident before the step's memory is looked at.
    seen = torch.full((len(cells), len(step.grid.pairs), vocab), float("nan"))
    with memory(device) as peak:
        began = now(device)
        step.prepare()
        line.preparing.append(now(device) - began)
        for at, cell in enumerate(cells):
            began = now(device)
            logits = step.cell(cell)
            line.working += now(device) - began
            seen[at] = logits
            del logits
        step.forget()
    line.bytes = max(line.bytes, peak.bytes)
    if type(step) is TwoPasses:
        line.agreement.right.update(zip(cells, seen, strict=True))
    for cell, logits in zip(cells, seen, strict=True):
        for at, row in enumerate(logits):
            line.agreement.see(cell, at, row)


def _one(step: Step, size: int) -> None:
    """A batch in the middle of the grid."""
    cell = (
        step.grid.layers[len(step.grid.layers) // 2],
        step.grid.tokens[len(step.grid.tokens) // 2],
    )
    step.batch(cell, slice(0, size)).argmax(-1)


def _residuals(network: LanguageModel, ids: Tensor, size: int) -> Tensor:
    """After every layer, of shape (layer, row, token, width)."""
    layers, kept = network.layers, torch.empty(0)

    def keep(layer: int, rows: slice):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
            nonlocal kept
            if not kept.numel():
                kept = _bare(output).new_empty((len(layers), *ids.shape, output[0].shape[-1]))
            kept[layer, rows] = _bare(output)

        return hook

    for start in range(0, len(ids), size):
        rows = slice(start, start + size)
        handles = [block.register_forward_hook(keep(at, rows)) for at, block in enumerate(layers)]
        network.model(input_ids=ids[rows], use_cache=False, logits_to_keep=1)
        for handle in handles:
            handle.remove()
    return kept


def _bare(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """transformers < 5 returns tuples."""
    return output[0] if isinstance(output, tuple) else output


if __name__ == "__main__":
    main()
