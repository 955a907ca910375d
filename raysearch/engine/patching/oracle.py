"""The plain run: the oracle, and what it reads on the way.

Invariants: the oracle is plain forward passes at batch one with owned hooks, one for each source
and one for the base: the reference for everything, sharing nothing with the batched form but the
hooks, the taps and the formulas; all patches of a row act in the base's run, each with what its
source's run had there.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.networks.components import Components, hook_at
from raysearch.engine.networks.hooks import Edit, Hook, HookCall, owned_hooks
from raysearch.engine.networks.network import ModelInput, Network
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.edits import Replacements, lent_to, sources_of, tap_columns
from raysearch.engine.patching.operations import Collect
from raysearch.engine.patching.rows import Patch, Row
from raysearch.errors import PositionError

Lend = Callable[
    [Row, Collection[Point]],
    Mapping[Point, Float[Tensor, "token width"]],
]
"""What a run has at some points, after all edits."""

Run = Callable[[ModelInput], Float[Tensor, "answer"]]
"""The logits (float32) at the answer of an input, by a plain forward pass, as far as that is not
known already."""


def oracle(
    network: Network,
    taps: Components,
    row: Row,
    lent: Replacements | None = None,
    lend: Lend | None = None,
    run: Run | None = None,
) -> Float[Tensor, "answer"]:
    """The logits (float32) at the answer of `row`, by plain forward passes; with gradients, where
    the caller lets there be any.

    `lent`: what the only patch is lent, where it is not what its source has. `lend`: where the runs
    of sources are kept (None: they are made here). `run`: what runs the base (None: the network,
    from its first block on).

    Raises: MisfiredHookError where a module does not run as often as it should in a forward pass.
    """
    logits, _ = _run(network, taps, row, (), lent, lend, run)
    return logits


def seen_in(
    network: Network,
    taps: Components,
    row: Row,
    points: Collection[Point],
    lend: Lend | None = None,
) -> Mapping[Point, Float[Tensor, "token width"]]:
    """What the run of `row` has at `points`, by plain forward passes; `lend` as in `oracle`."""
    return _run(network, taps, row, tuple(points), None, lend)[1]


@torch.inference_mode()
def collect(network: Network, taps: Components, row: Row) -> list[Float[Tensor, "token feature"]]:
    """What each `Collect` of the row reads in its run, in their order, by plain forward passes; the
    other patches act."""
    reads = [patch for patch in row.patches if isinstance(patch.kind, Collect)]
    _, seen = _run(network, taps, row, tuple({patch.point for patch in reads}))
    collected = []
    for patch in reads:
        tokens = seen[patch.point][list(patch.tokens)]
        collected.append(tokens if patch.features is None else tokens[:, list(patch.features)])
    return collected


def edits(
    network: Network,
    taps: Components,
    row: Row,
    lent: Replacements | None = None,
    lend: Lend | None = None,
) -> list[Edit]:
    """What each patch of the row does to the activation of a single row, with what its sources'
    runs have there."""
    if lent is not None:
        return [_written(taps, patch, own) for patch, own in zip(row.patches, lent, strict=True)]
    lend = lend or (lambda run, points: seen_in(network, taps, run, points))
    seen = {run: lend(run, points) for run, points in sources_of([row]).items()}
    owns = [lent_to(p, lambda s: seen[s.run][s.point]) for p in row.patches]
    return [_written(taps, patch, own) for patch, own in zip(row.patches, owns, strict=True)]


def _run(
    network: Network,
    taps: Components,
    row: Row,
    reads: Sequence[Point],
    lent: Replacements | None = None,
    lend: Lend | None = None,
    run: Run | None = None,
) -> tuple[Float[Tensor, "answer"], Mapping[Point, Float[Tensor, "token width"]]]:
    """The logits, and the activations at `reads`, after all edits."""
    hooks = [
        hook_at(network, taps.at(p.point), e, row.base)
        for p, e in zip(row.patches, edits(network, taps, row, lent, lend), strict=True)
    ]
    seen: dict[Point, list[Tensor]] = {point: [] for point in reads}
    hooks += [_reader(network, taps, point, row.base, seen[point]) for point in reads]
    points = [*(p.point for p in row.patches), *reads]
    run = partial(network.plain, whole=needs_all(taps, points)) if run is None else run
    with owned_hooks(hooks):
        logits = run(row.base)
    return logits, {point: torch.cat(parts) for point, parts in seen.items()}


def needs_all(taps: Components, points: Iterable[Point]) -> bool:
    """Whether some of these lie after the blocks, where a run for its answer alone has no other
    token."""
    return any(taps.at(point).layer is None and point.component != "embedding" for point in points)


def _reader(
    network: Network,
    taps: Components,
    point: Point,
    given: ModelInput,
    into: list[Tensor],
) -> Hook:
    tap = taps.at(point)

    def read(activation: Float[Tensor, "1 token width"], _moment: HookCall) -> None:
        into.append(tap.read(activation[0]).clone())

    return hook_at(network, tap, read, given)


def _written(taps: Components, patch: Patch, own: Tensor | None) -> Edit:
    columns = tap_columns(taps.at(patch.point), patch.features)

    def write(activation: Float[Tensor, "1 token width"], moment: HookCall) -> Tensor | None:
        end = moment.first + activation.shape[1]
        if moment.last and max(patch.tokens) >= end:
            raise PositionError(
                f"an activation of {end} tokens has no token {max(patch.tokens)} (from 0); name "
                f"one it has"
            )
        here = [
            (i, t - moment.first) for i, t in enumerate(patch.tokens) if moment.first <= t < end
        ]
        if not here:
            return None
        items, at = [i for i, _ in here], [t for _, t in here]
        edited = activation.clone()
        chosen = slice(None) if columns is None else columns.to(activation.device)
        source = own if own is None else own[items].to(activation)
        new = patch.kind.forward(
            edited[0, at][:, chosen][None], None if source is None else source[None]
        )[0]
        for token, vector in zip(at, new, strict=True):
            edited[0, token, chosen] = vector
        return edited

    return write
