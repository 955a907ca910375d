"""What the benchmarks share: a grid of plain interchanges, a sample of its cells, the engine on it,
a clock and a meter of memory.

Invariants: the pairs of a grid are distinct, so that no row is run once for two of them; a sample
has one cell of each stratum of layers and positions, and no layer or position of a stratum twice
while there is another; only the engine's own work is on its clock, not what the caller does between
two waves.
"""

import argparse
import ctypes
import gc
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from torch import Tensor

from raysearch.core.events import Ids
from raysearch.core.model_source import ModelSource
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.memory import RowLimit, capture_bytes
from raysearch.engine.execution.predict import Prediction, predict
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.loading.load import load
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.patching.edits import sources_of
from raysearch.engine.patching.rows import Row, swap

MODEL = Path(__file__).parent.parent / "models" / "SmolLM2-135M-Instruct"
TOKENS = 24
# fmt: off
COUNTRIES = (
    "Spain", "Italy", "France", "Japan", "China", "India", "Egypt", "Greece",
    "Poland", "Norway", "Sweden", "Finland", "Denmark", "Austria", "Hungary", "Turkey",
)
# fmt: on
SAME = "On the old map of the world that hangs in the hall, in the country of {}, the official capital is the"
OTHER = (
    SAME,
    "In a new book about the lands that I read this year, in the country of {}, the official "
    "language is the",
)
SIZES = (8, 16, 32, 64)

Cell = tuple[int, int]
"""Layer, position."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Plain interchanges of the residual, one cell for each layer and position, each of all pairs
    (base ids, source ids)."""

    pairs: tuple[tuple[Ids, Ids], ...]
    layers: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def cells(self) -> int:
        return len(self.layers) * len(self.tokens)

    @property
    def size(self) -> int:
        """Rows, those that are free among them."""
        return self.cells * len(self.pairs)

    def __str__(self) -> str:
        return f"{len(self.layers)} layers x {len(self.tokens)} positions x {len(self.pairs)} pairs = {self.size} rows"

    def ids(self, side: int, device: torch.device | str = "cpu") -> Tensor:
        """The bases (side 0) or the sources (1), of shape (pair, token)."""
        return torch.tensor([pair[side] for pair in self.pairs], device=device)

    def rows(self, cell: Cell) -> list[Row]:
        return [swap(base, source, cell[0], (cell[1],)) for base, source in self.pairs]

    def sample(self, by_layer: int = 6, by_token: int = 4) -> list[Cell]:
        """A cell of each of 6 x 4 strata, in random order. Costs that are linear in layer and
        position are met closely."""
        rng = random.Random("0.cells")
        layers = [_drawn(rng, part, by_token) for part in _parts(self.layers, by_layer)]
        tokens = [_drawn(rng, part, by_layer) for part in _parts(self.tokens, by_token)]
        cells = [
            (layers[i][j], tokens[j][i]) for i in range(len(layers)) for j in range(len(tokens))
        ]
        rng.shuffle(cells)
        return list(dict.fromkeys(cells))


def flags(doc: str | None, rows: int = 64) -> argparse.ArgumentParser:
    """The flags that all have."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--rows", type=int, default=rows, help="of the engine, in a forward pass")
    parser.add_argument(
        "--layers", type=int, help="only so many, spread evenly, the first and the last among them"
    )
    parser.add_argument("--positions", type=int, help="likewise")
    parser.add_argument("--pairs", type=int, default=64)
    return parser


def half(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The flag of those that run on the template."""
    parser.add_argument(
        "--half",
        action="store_true",
        help="second half of the positions, prompts that share no prefix",
    )
    return parser


def on_template(doc: str | None) -> tuple[argparse.Namespace, LoadedModel, LanguageModel, Grid]:
    """What a benchmark of plain interchanges on the template begins with: flags, the model, and the
    grid that they ask for."""
    asked = half(flags(doc)).parse_args()
    torch.set_num_threads(asked.threads)
    loaded = load(ModelSource(str(MODEL)))
    return asked, loaded, LanguageModel(loaded.model), template_grid(loaded, asked, asked.half)


def template_grid(loaded: LoadedModel, asked: argparse.Namespace, half: bool = False) -> Grid:
    """The grid on the 24-token template; with `half`, on its second half, with prompts that share
    no prefix."""
    rng = random.Random("0.pairs")
    pairs = []
    for base, source in rng.sample(list(itertools.permutations(COUNTRIES, 2)), asked.pairs):
        templates = rng.sample(OTHER, 2) if half else (SAME, SAME)
        texts = zip(templates, (base, source), strict=True)
        ids = [tuple(loaded.tokenizer(t.format(c))["input_ids"]) for t, c in texts]
        assert {len(i) for i in ids} == {TOKENS}, [len(i) for i in ids]
        pairs.append((ids[0], ids[1]))
    layers = spread(range(loaded.model.config.num_hidden_layers), asked.layers)
    return Grid(
        tuple(pairs), layers, spread(range(TOKENS // 2 if half else 0, TOKENS), asked.positions)
    )


def spread(among: Sequence[int], count: int | None) -> tuple[int, ...]:
    """`count` of them (None: all), evenly, the first and the last included."""
    if count is None or count >= len(among):
        return tuple(among)
    return tuple(among[round(i * (len(among) - 1) / max(count - 1, 1))] for i in range(count))


def now(device: torch.device | str = "cpu") -> float:
    """Seconds on a clock, once the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def best_size(run: Callable[[int], object], most: int, device: torch.device | str = "cpu") -> int:
    """The batch size, of 8, 16, 32 and 64, at which `run` takes the least time a row."""
    took = {}
    for size in [s for s in SIZES if s < most] + [min(most, SIZES[-1])]:
        run(size)
        began = now(device)
        run(size)
        took[size] = (now(device) - began) / size
    return min(took, key=lambda s: took[s])


@dataclass(slots=True)
class Engine:
    """The engine on a grid: `prepare`, then `waves`. `free`: whether rows that are sure to be the
    base's run are left out.

    `shuffled`: waves in random order, for a part of them to stand for the whole.
    """

    network: LanguageModel
    grid: Grid
    limit: int
    tolerance: float
    free: bool = True
    shuffled: bool = False
    seconds: float = 0.0
    capturing: float = 0.0
    where: dict[Row, tuple[Cell, int]] = field(default_factory=dict)
    left_alone: dict[Row, Prediction] = field(default_factory=dict)
    todo: list[list[Row]] = field(default_factory=list)
    _path: ReplayExecutor | None = None

    def prepare(self) -> ReplayExecutor:
        """Makes the rows, the captures and the waves; what comes back says where rows join and how
        long they are."""
        began = now(self.network.device)
        taps = Components(self.network)
        captures = ActivationCache(
            self.network,
            taps,
            RowLimit(self.limit),
            self.tolerance,
            capture_bytes(self.network.device),
            keys=True,
        )
        self._path = ReplayExecutor(self.network, taps, captures)
        for cell in itertools.product(self.grid.layers, self.grid.tokens):
            self.where.update({row: (cell, at) for at, row in enumerate(self.grid.rows(cell))})
        free = [row for row in self.where if self._path.is_free(row)] if self.free else []
        owed = set(free)
        self.todo = list(self._path.batches([row for row in self.where if row not in owed]))
        capturing = now(self.network.device)
        runs = dict.fromkeys(
            run for wave in self.todo for row in wave for run in (Row(row.base), *sources_of([row]))
        )
        captures.runs(runs)
        self.capturing = now(self.network.device) - capturing
        self.left_alone = dict(
            zip(free, captures.predictions([row.unpatched for row in free]), strict=True)
        )
        if self.shuffled:
            random.Random("0.waves").shuffle(self.todo)
        self.seconds += now(self.network.device) - began
        return self._path

    def waves(self) -> Iterator[tuple[list[Row], Tensor]]:
        """Each wave with its logits, once it is decided."""
        assert self._path is not None, "prepare first"
        for wave in self.todo:
            began = now(self.network.device)
            logits = self._path.logits(wave)
            predict(logits)
            self.seconds += now(self.network.device) - began
            yield wave, logits


@dataclass(slots=True)
class Agreement:
    """How far logits are from those that are held to be right, on the cells that these have."""

    right: dict[Cell, Tensor]
    tolerance: float
    worst: float = 0.0
    rows: int = 0
    equal: int = 0
    wrong: int = 0
    """Rows with another argmax than the right one, which is no near-tie."""

    def see(self, cell: Cell, at: int, logits: Tensor) -> None:
        """Looks at one row."""
        if cell in self.right:
            self._compare(self.right[cell][at], logits)

    def see_free(
        self, row: Row, where: tuple[Cell, int], network: LanguageModel, decision: Prediction
    ) -> None:
        """Looks at a row that was not run: what is said of it is what the base's run says, which is
        made here."""
        if where[0] in self.right:
            logits = network.plain(row.base)
            assert int(logits.argmax()) == decision.id or decision.gap < self.tolerance
            self._compare(self.right[where[0]][where[1]], logits)

    def __str__(self) -> str:
        share = "all" if self.equal == self.rows else f"{self.equal / max(self.rows, 1):.1%}"
        return f"{self.worst:.2g}, argmax equal on {share} of {self.rows} rows" + (
            f", {self.wrong} WRONG" if self.wrong else ""
        )

    def _compare(self, right: Tensor, logits: Tensor) -> None:
        logits = logits.to(right.device, torch.float32)
        same = bool(right.argmax() == logits.argmax())
        top = right.topk(2).values
        self.worst = max(self.worst, float((right - logits).abs().max()))
        self.rows += 1
        self.equal += same
        self.wrong += not same and float(top[0] - top[1]) >= self.tolerance


@dataclass(slots=True)
class Peak:
    """Bytes above what was held before."""

    bytes: int = 0


@contextmanager
def memory(device: torch.device | str = "cpu") -> Iterator[Peak]:
    """The most memory that is taken within: on a GPU as its allocator says, else resident, looked
    at every 5 ms."""
    peak = Peak()
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    _trim()
    process, over = psutil.Process(), threading.Event()
    before = process.memory_info().rss

    def look() -> None:
        while not over.wait(0.005):
            peak.bytes = max(peak.bytes, process.memory_info().rss - before)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _trim() -> None:
    """Hands back to the system what was freed, else the next to take memory seems to take none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)


def _parts(among: Sequence[int], count: int) -> list[Sequence[int]]:
    """In `count` runs of neighbours (fewer, where there are not so many)."""
    count = min(count, len(among))
    return [among[i * len(among) // count : (i + 1) * len(among) // count] for i in range(count)]


def _drawn(rng: random.Random, among: Sequence[int], count: int) -> list[int]:
    """`count` of them, none again before all were drawn."""
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += rng.sample(among, len(among))
    return drawn[:count]
