"""Which share of the machine's own matrix rate the engine reaches on a grid.

    make install && .venv/bin/python benchmarks/roofline.py [--half] [--rows 64] [--threads 2]

SmolLM2-135M, residual, all 30 layers x positions of a 24-token template, 64 pairs, float32;
`--half`: positions in the second half only, and prompts that differ from their first token on, so
that no row is free.

What is counted is what the grid needs after reuse: each distinct prompt once, whole; then, for the
waves that the engine makes of the rows that are not free, in every layer that a row still has to
pass, the linear layers at its suffix tokens and causal attention, and the head at one token. The
machine's rate is that of torch.nn.functional.linear at the same shapes, in the same process with as
many threads, between parts of the engine's run, with the weights of one layer after the other so
that they are as cold as in the model; attention's is that of torch.matmul. The share is the seconds
that the counted work takes at these rates, over the engine's. The last line is the share.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from grid import Engine, now, on_template
from torch import nn

from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.patching.edits import sources_of
from raysearch.engine.patching.rows import Row

ROUNDS = 4
SECONDS = 0.015
"""So long each shape is run in a round, at least."""
EXACT = 24
"""Suffixes of more tokens are measured in steps of 8."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer at `rows` x `tokens`."""

    rows: int
    tokens: int
    inner: int
    outer: int

    @property
    def multiply_adds(self) -> int:
        return self.rows * self.tokens * self.inner * self.outer


@dataclass(frozen=True, slots=True)
class Attention:
    """Scores and mixes of values, of the last `tokens` of `length`."""

    rows: int
    tokens: int
    length: int
    heads: int
    width: int

    @property
    def multiply_adds(self) -> int:
        """Those that a causal model needs."""
        return int(self.dense * self.needed)

    @property
    def dense(self) -> int:
        return 2 * self.rows * self.heads * self.tokens * self.length * self.width

    @property
    def needed(self) -> float:
        """The share of the scores that are not masked."""
        return 1 - (self.tokens - 1) / (2 * self.length)


Shape = Linear | Attention


@dataclass(frozen=True, slots=True)
class Sizes:
    """What of a model is counted."""

    linears: tuple[tuple[int, int], ...]
    layers: int
    heads: int
    width: int
    head: tuple[int, int]

    @classmethod
    def of(cls, network: LanguageModel) -> "Sizes":
        """Of a model whose layers are alike and whose products are all in nn.Linear or
        attention."""
        config = network.model.config
        linears = tuple((m.in_features, m.out_features) for m in _linears(network.layers[0]))
        head = network.model.get_output_embeddings()
        width = getattr(config, "head_dim", None) or config.hidden_size // network.heads
        return cls(
            linears,
            len(network.layers),
            network.heads,
            width,
            (head.in_features, head.out_features),
        )

    def block(self, rows: int, tokens: int, length: int) -> Iterator[Shape]:
        for inner, outer in self.linears:
            yield Linear(rows, tokens, inner, outer)
        yield Attention(rows, tokens, length, self.heads, self.width)

    def answer(self, rows: int) -> Linear:
        return Linear(rows, 1, *self.head)


@dataclass(slots=True)
class Work:
    """How often each shape is needed, by phase."""

    phases: dict[str, Counter[Shape]] = field(
        default_factory=lambda: {phase: Counter() for phase in ("captures", "blocks", "head")}
    )

    def capture(self, sizes: Sizes, prompts: Sequence[int], limit: int) -> None:
        """The runs of prompts of these lengths."""
        for length, count in Counter(prompts).items():
            for rows in (min(limit, count - start) for start in range(0, count, limit)):
                for shape in sizes.block(rows, length, length):
                    self.phases["captures"][shape] += sizes.layers
                self.phases["captures"][sizes.answer(rows)] += 1

    def wave(self, sizes: Sizes, replay: ReplayExecutor, rows: Sequence[Row]) -> None:
        """One wave: in each layer, the rows that have joined."""
        shape = replay.shape_of(rows[0])
        assert shape is not None, "plain interchanges are replayed"
        first = Counter((entry + 1) // 2 for entry in map(replay.entry, rows))
        joined = list(itertools.accumulate(first[layer] for layer in range(sizes.layers)))
        for count in (c for c in joined if c):
            self.phases["blocks"].update(
                sizes.block(count, shape.length - shape.start, shape.length)
            )
        self.phases["head"][sizes.answer(len(rows))] += 1

    @property
    def shapes(self) -> set[Shape]:
        return set().union(*self.phases.values())

    def multiply_adds(self, phase: str | None = None) -> int:
        chosen = self.phases.values() if phase is None else [self.phases[phase]]
        return sum(
            shape.multiply_adds * count for counter in chosen for shape, count in counter.items()
        )


class Rates:
    """The machine's own rate at shapes, those alike measured as one; every call of `measure` adds a
    round."""

    def __init__(self, network: LanguageModel, shapes: Iterable[Shape]) -> None:
        self._network = network
        like = next(network.model.parameters())
        self._device, self._dtype = like.device, like.dtype
        self._weights: dict[tuple[int, int], list[torch.Tensor]] = {}
        for module in [m for block in network.layers for m in _linears(block)] + [
            network.model.get_output_embeddings()
        ]:
            self._weights.setdefault((module.in_features, module.out_features), []).append(
                module.weight
            )
        self._turn = dict.fromkeys(self._weights, 0)
        self._took: dict[Shape, list[float]] = {
            _near(shape): [] for shape in sorted(shapes, key=repr)
        }

    def measure(self) -> None:
        for shape, took in self._took.items():
            took.append(
                self._linear(shape) if isinstance(shape, Linear) else self._attention(shape)
            )

    def seconds(self, counted: Counter[Shape]) -> float:
        """What the counted work takes at the rate of each shape."""
        total = 0.0
        for shape, count in counted.items():
            near = _near(shape)
            total += (
                count
                * sum(self._took[near])
                / len(self._took[near])
                * shape.multiply_adds
                / near.multiply_adds
            )
        return total

    def _linear(self, shape: Linear) -> float:
        x = torch.randn(
            (shape.rows, shape.tokens, shape.inner), device=self._device, dtype=self._dtype
        )
        size = shape.inner, shape.outer
        weights = self._weights[size]

        def product() -> None:
            self._turn[size] += 1
            nn.functional.linear(x, weights[self._turn[size] % len(weights)])

        return self._each(product)

    def _attention(self, shape: Attention) -> float:
        """Of dense products, the share that is needed."""
        options = {"device": self._device, "dtype": self._dtype}
        queries = torch.randn((shape.rows, shape.heads, shape.tokens, shape.width), **options)
        keys, values = torch.randn(
            (2, shape.rows, shape.heads, shape.length, shape.width), **options
        )
        return self._each(lambda: queries @ keys.mT @ values) * shape.needed

    def _each(self, product) -> float:  # type: ignore[no-untyped-def]
        """Seconds of one; on a GPU many are queued before the clock is read."""
        product()
        at_once = 8 if self._device.type == "cuda" else 1
        began, done, passed = now(self._device), 0, 0.0
        while passed < SECONDS or done < 3:
            for _ in range(at_once):
                product()
            done += at_once
            passed = now(self._device) - began
        return passed / done


class Stopwatch:
    """Where the seconds of waves go: in a block's linear layers, in the rest of a block, in the
    head's product. CPU only."""

    def __init__(self, network: LanguageModel) -> None:
        self.seconds = Counter[str]()
        self._handles = []
        for block in network.layers:
            self._watch(block, "blocks")
            for module in _linears(block):
                self._watch(module, "linear layers")
        self._watch(network.model.get_output_embeddings(), "head")

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _watch(self, module: nn.Module, name: str) -> None:
        began = []
        self._handles.append(module.register_forward_pre_hook(lambda *_: began.append(now())))
        self._handles.append(
            module.register_forward_hook(
                lambda *_: self.seconds.update({name: now() - began.pop()})
            )  # type: ignore[dict-item]
        )


@torch.inference_mode()
def main() -> None:
    asked, _, network, grid = on_template(__doc__)
    engine = Engine(network, grid, asked.rows, NEAR_TIE["float32"])
    work = work_of(engine, engine.prepare())
    rates, watch = Rates(network, work.shapes), Stopwatch(network)
    marks = {len(engine.todo) * part // ROUNDS for part in range(ROUNDS)}
    for at, _ in enumerate(engine.waves()):
        if at in marks:
            watched = watch.seconds.copy()
            rates.measure()
            watch.seconds = watched
    watch.close()
    print(
        f"grid: {grid}, {len(engine.left_alone) / grid.size:.0%} free; {len(engine.todo)} waves of "
        f"{asked.rows} rows at most"
    )
    _print(engine, work, rates, watch)
    ideal = sum(rates.seconds(counted) for counted in work.phases.values())
    print(f"share: {ideal / engine.seconds:.2f}")


def work_of(engine: Engine, replay: ReplayExecutor, waves: int | None = None) -> Work:
    """Of the first `waves` (None: all) of an engine that is prepared, and of the runs that all
    stand on."""
    sizes, work = Sizes.of(engine.network), Work()
    rows = [row for wave in engine.todo for row in wave]
    runs = dict.fromkeys(run for row in rows for run in (Row(row.base), *sources_of([row])))
    work.capture(sizes, [len(run.base) for run in runs], engine.limit)  # type: ignore[arg-type]
    for wave in engine.todo[:waves]:
        work.wave(sizes, replay, wave)
    return work


def _print(engine: Engine, work: Work, rates: Rates, watch: Stopwatch) -> None:
    """Of each phase the work, the seconds and the rate, and what the rate of the machine's own
    products is at its shapes."""
    took = {
        "captures": engine.capturing,
        "blocks": watch.seconds["blocks"],
        "head": watch.seconds["head"],
    }
    print(f"{'':34} {'GFLOP':>8} {'seconds':>8} {'GFLOP/s':>8} {'machine':>8} {'share':>6}")
    for phase, counted in work.phases.items():
        _line(phase, work.multiply_adds(phase), took[phase], rates.seconds(counted))
        if phase == "blocks":
            linear = Counter(
                {shape: n for shape, n in counted.items() if isinstance(shape, Linear)}
            )
            flop = sum(shape.multiply_adds * n for shape, n in linear.items())
            _line(
                "  their linear layers", flop, watch.seconds["linear layers"], rates.seconds(linear)
            )
            rest = took["blocks"] - watch.seconds["linear layers"]
            left = counted - linear
            _line(
                "  their attention, norms, gates",
                work.multiply_adds(phase) - flop,
                rest,
                rates.seconds(left),
            )
    print(
        f"{'joins, edits, decisions, Python':34} {'':8} {engine.seconds - sum(took.values()):8.2f}"
    )
    ideal = sum(rates.seconds(counted) for counted in work.phases.values())
    _line("in all", work.multiply_adds(), engine.seconds, ideal)


def _line(name: str, multiply_adds: int, seconds: float, ideal: float) -> None:
    flop = 2e-9 * multiply_adds
    print(
        f"{name:34} {flop:8.0f} {seconds:8.2f} {flop / max(seconds, 1e-9):8.1f} "
        f"{flop / max(ideal, 1e-9):8.1f} "
        f"{ideal / max(seconds, 1e-9):6.2f}"
    )


def _linears(block: nn.Module) -> list[nn.Linear]:
    return [module for module in block.modules() if isinstance(module, nn.Linear)]


def _near(shape: Shape) -> Shape:
    """The shape at which it is measured: rows rounded up to 2, 4, 8 or a multiple of 16, tokens
    above `EXACT` to one of 8."""
    rows = -(-shape.rows // 16) * 16 if shape.rows > 8 else 1 << (shape.rows - 1).bit_length()
    tokens = shape.tokens if shape.tokens <= EXACT else -(-shape.tokens // 8) * 8
    return replace(shape, rows=rows, tokens=tokens)


if __name__ == "__main__":
    main()
