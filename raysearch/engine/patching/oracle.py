"""The oracle: plain forward passes that define the result of every row.

Invariants: batch size one with owned hooks, one pass for each source and one for the base; it
shares with the batched form only the hooks, the hook points and the formulas; all patches of a row
act in the base's run, each with the activation of its source's run.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.networks.components import Components, hook_at
from raysearch.engine.networks.hooks import Activation, Edit, Hook, HookCall, owned_hooks
from raysearch.engine.networks.network import ModelInput, Network
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.edits import (
    Replacements,
    chosen,
    hook_columns,
    replacement_of,
    sources_of,
)
from raysearch.engine.patching.operations import Collect
from raysearch.engine.patching.rows import Patch, Row
from raysearch.errors import PositionError

ReadRun = Callable[
    [Row, Collection[Point]],
    Mapping[Point, Float[Tensor, "_token _width"]],
]
"""Returns the activations of a run at some points, after all edits."""

LogitsOf = Callable[[ModelInput], Float[Tensor, "answer"]]
"""Returns the logits (float32) at the answer of an input, by a plain forward pass or a shorter
equivalent."""


def oracle(
    network: Network,
    hook_points: Components,
    row: Row,
    replacements: Replacements | None = None,
    read_run: ReadRun | None = None,
    run: LogitsOf | None = None,
) -> Float[Tensor, "answer"]:
    """Computes the logits (float32) at the answer of `row` by plain forward passes; with gradients,
    unless the caller disables them.

    `replacements`: activation for the only patch, instead of its source's. `read_run`: reads cached
    runs of sources (None: they are run here). `run`: runs the base (None: the network, from its
    first block on).

    Raises: MisfiredHookError if a module runs an unexpected number of times in a forward pass.
    """
    logits, _ = _run(network, hook_points, row, (), replacements, read_run, run)
    return logits


def activations_in(
    network: Network,
    hook_points: Components,
    row: Row,
    points: Collection[Point],
    read_run: ReadRun | None = None,
) -> Mapping[Point, Float[Tensor, "_token _width"]]:
    """Returns the activations at `points` in the run of `row`, by plain forward passes; `read_run`
    as in `oracle`."""
    return _run(network, hook_points, row, tuple(points), None, read_run)[1]


@torch.inference_mode()
def collect(
    network: Network, hook_points: Components, row: Row
) -> list[Float[Tensor, "_token _feature"]]:
    """Returns the values that each `Collect` of the row reads, in order, by plain forward passes;
    the other patches act."""
    reads = [patch for patch in row.patches if isinstance(patch.kind, Collect)]
    _, seen = _run(network, hook_points, row, tuple({patch.point for patch in reads}))
    return [chosen(seen[patch.point], patch.tokens, patch.features) for patch in reads]


def edits(
    network: Network,
    hook_points: Components,
    row: Row,
    replacements: Replacements | None = None,
    read_run: ReadRun | None = None,
) -> list[Edit]:
    """Returns the edit of each patch of the row to a single-row activation, given the activations
    of its sources' runs."""
    if replacements is not None:
        return [
            _write_edit(hook_points, patch, own)
            for patch, own in zip(row.patches, replacements, strict=True)
        ]
    read_run = read_run or (lambda run, points: activations_in(network, hook_points, run, points))
    seen = {run: read_run(run, points) for run, points in sources_of([row]).items()}
    owns = [replacement_of(p, lambda s: seen[s.run][s.point]) for p in row.patches]
    return [
        _write_edit(hook_points, patch, own) for patch, own in zip(row.patches, owns, strict=True)
    ]


def _run(
    network: Network,
    hook_points: Components,
    row: Row,
    reads: Sequence[Point],
    replacements: Replacements | None = None,
    read_run: ReadRun | None = None,
    run: LogitsOf | None = None,
) -> tuple[Float[Tensor, "answer"], Mapping[Point, Float[Tensor, "_token _width"]]]:
    """Returns the logits, and the activations at `reads` after all edits."""
    hooks = [
        hook_at(network, hook_points.at(p.point), e, row.base)
        for p, e in zip(
            row.patches, edits(network, hook_points, row, replacements, read_run), strict=True
        )
    ]
    seen: dict[Point, list[Tensor]] = {point: [] for point in reads}
    hooks += [_reader(network, hook_points, point, row.base, seen[point]) for point in reads]
    points = [*(p.point for p in row.patches), *reads]
    run = partial(network.plain, whole=needs_all(hook_points, points)) if run is None else run
    with owned_hooks(hooks):
        logits = run(row.base)
    return logits, {point: torch.cat(parts) for point, parts in seen.items()}


def needs_all(hook_points: Components, points: Iterable[Point]) -> bool:
    """Returns whether some points lie after the blocks, where a run for the answer alone has no
    other tokens."""
    return any(
        hook_points.at(point).layer is None and point.component != "embedding" for point in points
    )


def _reader(
    network: Network,
    hook_points: Components,
    point: Point,
    given: ModelInput,
    into: list[Tensor],
) -> Hook:
    hook_point = hook_points.at(point)

    def read(activation: Activation, _hook_call: HookCall) -> None:
        into.append(hook_point.read(activation[0]).clone())

    return hook_at(network, hook_point, read, given)


def _write_edit(
    hook_points: Components, patch: Patch, own: Float[Tensor, "token feature"] | None
) -> Edit:
    columns = hook_columns(hook_points.at(patch.point), patch.features)

    def write(activation: Activation, hook_call: HookCall) -> Activation | None:
        end = hook_call.first + activation.shape[1]
        if hook_call.last and max(patch.tokens) >= end:
            raise PositionError(
                f"an activation of {end} tokens has no token {max(patch.tokens)} (from 0); name "
                f"one it has"
            )
        here = [
            (i, t - hook_call.first)
            for i, t in enumerate(patch.tokens)
            if hook_call.first <= t < end
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
