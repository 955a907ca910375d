"""The full interchange: the oracle, and the same for many rows in one forward pass.

Invariants: the oracle is two plain forward passes at batch one and one owned hook on each block it touches: the
reference for everything, sharing nothing with the batched form but the hooks; all units of an intervention are
interchanged at once, in the base's run, each with what the source's run without intervention had there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from raysearch.engine.captures import Run
from raysearch.engine.forward import batch_logits, plain_logits, width_of
from raysearch.engine.hooks import Edit, owned_hooks
from raysearch.engine.sites import Sizes, check_site, layers_of
from raysearch.errors import JobError, NotYetError, PositionError
from raysearch.search.events import Encoded, Ids
from raysearch.search.hypothesis import Intervention, Unit


@dataclass(frozen=True, slots=True)
class Patch:
    """In one layer: the base's tokens that are replaced, each by the source's token that stands in the same place."""

    layer: int
    base_tokens: Ids
    source_tokens: Ids


@dataclass(frozen=True, slots=True)
class Row:
    """One intervention on one pair, as the model runs it. Layers of the patches differ. No patches: no intervention."""

    base: Ids
    source: Ids
    patches: tuple[Patch, ...] = ()


def row_of(pair: Encoded, intervention: Intervention, sizes: Sizes) -> Row:
    """What to run for `intervention` on `pair`.

    Raises: NotYetError for what this version does not interchange; ModelError, PositionError for a site not there.
    """
    if intervention.kind != "interchange":
        raise NotYetError(f"intervention kind {intervention.kind!r} is not supported yet; use interchange")
    if not intervention.units:
        raise JobError("an intervention without units changes nothing; name at least one unit")
    if len(pair.sources) != 1:
        raise NotYetError(f"pair {pair.index}: has {len(pair.sources)} sources; only one is supported yet")
    ((name, source),) = pair.sources.items()
    tokens: dict[int, dict[int, int]] = {}  # of each layer: base's token -> source's token
    for unit in intervention.units:
        _check_unit(unit, sizes)
        position = unit.site.position
        if position not in pair.base_positions:
            raise PositionError(
                f"pair {pair.index}: has no position {position!r}; it has {', '.join(pair.base_positions)}"
            )
        taken = tokens.setdefault(unit.site.layer, {})
        ours, theirs = pair.base_positions[position], pair.source_positions[name][position]
        for base_token, source_token in zip(ours, theirs, strict=True):
            if taken.setdefault(base_token, source_token) != source_token:
                raise PositionError(
                    f"pair {pair.index}: two units write token {base_token} of layer {unit.site.layer}, from source "
                    f"tokens {taken[base_token]} and {source_token}; name units that do not overlap"
                )
    return Row(pair.base, source, tuple(Patch(at, tuple(t), tuple(t.values())) for at, t in sorted(tokens.items())))


@torch.inference_mode()
def oracle(model: PreTrainedModel, row: Row) -> Float[Tensor, "vocab"]:
    """The logits (float32) at the answer: the base's run with the row's patches, by two plain forward passes.

    Raises: MisfiredHookError where a block does not run exactly once in a forward pass.
    """
    layers = layers_of(model)
    seen: dict[int, Tensor] = {}

    def reader(patch: Patch) -> Edit:
        def read(hidden: Float[Tensor, "1 token d_model"]) -> None:
            seen[patch.layer] = hidden[0, list(patch.source_tokens)].clone()

        return read

    def writer(patch: Patch) -> Edit:
        def write(hidden: Float[Tensor, "1 token d_model"]) -> Tensor:
            hidden = hidden.clone()
            hidden[0, list(patch.base_tokens)] = seen[patch.layer]
            return hidden

        return write

    if row.patches:
        with owned_hooks([(layers[p.layer], reader(p)) for p in row.patches]):
            plain_logits(model, row.source)
    with owned_hooks([(layers[p.layer], writer(p)) for p in row.patches]):
        return plain_logits(model, row.base)


@torch.inference_mode()
def interchange(model: PreTrainedModel, rows: Sequence[Row], runs: Mapping[Ids, Run]) -> Float[Tensor, "row vocab"]:
    """The logits (float32) at the answer of every row, in one forward pass with one owned hook on each touched block.

    The rows' bases have one padded width; `runs` has the run of each row's source.
    """
    layers = layers_of(model)
    hooks: list[tuple[nn.Module, Edit]] = []
    for layer in sorted({p.layer for row in rows for p in row.patches}):
        hooks.append((layers[layer], _writer(layer, rows, runs, model.device)))
    with owned_hooks(hooks):
        return batch_logits(model, [row.base for row in rows])


def _writer(
    layer: int,
    rows: Sequence[Row],
    runs: Mapping[Ids, Run],
    device: torch.device,
) -> Edit:
    """Puts into each row, at its own padded columns, what its own source has in this layer."""
    at_row: list[int] = []
    at_column: list[int] = []
    values: list[Tensor] = []
    for at, row in enumerate(rows):
        pad = width_of(len(row.base)) - len(row.base)
        for patch in row.patches:
            if patch.layer == layer:
                at_row += [at] * len(patch.base_tokens)
                at_column += [pad + token for token in patch.base_tokens]
                values.append(runs[row.source].residuals[layer, list(patch.source_tokens)])
    where = torch.tensor(at_row, device=device), torch.tensor(at_column, device=device)
    new = torch.cat(values)

    def write(hidden: Float[Tensor, "row token d_model"]) -> Tensor:
        hidden = hidden.clone()
        hidden[where] = new
        return hidden

    return write


def _check_unit(unit: Unit, sizes: Sizes) -> None:
    check_site(unit.site, sizes.layers)
    if unit.source_site is not None:
        raise NotYetError(
            "a unit that takes from another site of the source is not supported yet; leave source_site out"
        )
    if unit.subspace.featurizer != "identity":
        raise NotYetError(
            f"featurizer {unit.subspace.featurizer!r} is not supported yet; use identity (subspaces: [full])"
        )
    if unit.subspace.features not in (None, sizes.width):
        raise NotYetError(f"{unit.subspace.features} of {sizes.width} features are not supported yet; use all (full)")
