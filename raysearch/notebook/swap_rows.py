"""Rows of one base and one source: the tokens of their positions, and their logits under a swap.

Invariants: a near-tie is decided by the oracle; a patch that puts in what is there already changes
no bit of the logits.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from raysearch.core.events import Ids
from raysearch.core.hypothesis import Intervention, Unit
from raysearch.engine.encoding.tokenized_texts import TokenizedText
from raysearch.engine.execution.canonical_runner import CanonicalRunner
from raysearch.engine.execution.memory import RowLimit, capture_bytes
from raysearch.engine.execution.predict import near_ties, predict
from raysearch.engine.execution.selfcheck import select_executor
from raysearch.engine.execution.selfcheck_rows import selfcheck_rows
from raysearch.engine.model_runner import hold_copies
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel, Network
from raysearch.engine.patching.rows import Row
from raysearch.errors import PositionError
from raysearch.interventions.apply import PositionSpec

if TYPE_CHECKING:
    from torch import Tensor


def tokens_at(text: str, tokens: TokenizedText, position: PositionSpec) -> Ids:
    """Returns the tokens that a position of a text stands for: an index, or a piece of the text.

    Raises: PositionError.
    """
    count = len(tokens.ids)
    if not count:
        raise PositionError(f"{text!r} has no tokens; give a text that has")
    if isinstance(position, int):
        if not -count <= position < count:
            raise PositionError(
                f"{text!r} has {count} tokens; {position} is none of them; it has "
                f"0..{count - 1}, -1 is the last"
            )
        return (position % count,)
    if not isinstance(position, str):
        raise PositionError(
            f"{position!r} is no position; give the index of a token or a piece of the text"
        )
    piece = position.strip()
    if not piece or text.count(piece) != 1:
        raise PositionError(
            f"{position!r} stands {text.count(piece) if piece else 0} times in {text!r}; name "
            f"one that stands there once, or a token"
        )
    start = text.index(piece)
    return tokens.within((start, start + len(piece)))


def canonical_logits(
    network: Network,
    canonical: CanonicalRunner,
    row: Row,
    constants: Sequence["Tensor"] | None = None,
) -> "Tensor":
    """Returns the logits of a row, of shape (answer), by the canonical computation; with what its
    patches put in, where these are `constants`.

    Where every patch puts in what is there already, they are those of the base's own run, bit for
    bit.
    """
    if constants is not None:
        return canonical.logits(row, constants)
    if canonical.copies_own_activations(row):
        return network.plain(row.base)
    return canonical.logits(row)


def logits_of_rows(
    network: LanguageModel, components: Components, rows: Iterable[Row], dtype: str
) -> tuple[dict[Row, Any], str]:
    """Returns the logits of each row, and the name of the executor that gave them."""
    device, layers = network.device, len(network.blocks)
    distinct = list(dict.fromkeys(rows))
    some = distinct[:: max(1, len(distinct) // 6)]
    hold_copies(network)
    settled = select_executor(
        network,
        components,
        selfcheck_rows(some, layers),
        RowLimit(64),
        capture_bytes(device),
        dtype,
    )
    executor, canonical = settled.executor, CanonicalRunner(network, components)
    found: dict[Row, Any] = {
        row: canonical_logits(network, canonical, row) for row in distinct if executor.is_free(row)
    }
    for batch in executor.batches([row for row in distinct if row not in found]):
        logits = executor.logits(batch)
        near = set(near_ties(predict(logits), settled.near_tie))
        found.update(
            (row, canonical_logits(network, canonical, row) if i in near else logits[i])
            for i, row in enumerate(batch)
        )
    return found, executor.name


def where_words(intervention: Intervention, row: Row, tokens: Sequence[str] = ()) -> str:
    """Describes the units of a row's intervention, for the reader of a swap. `tokens`: the base's,
    as text; none, where it is no text."""
    ablation = f", {intervention.kind} ablation" if intervention.is_ablation else ""
    return "; ".join(
        unit_words(unit, patch.tokens, tokens) + ablation
        for unit, patch in zip(intervention.units, row.patches, strict=True)
    )


def unit_words(unit: Unit, at: Ids, tokens: Sequence[str]) -> str:
    """Describes a unit and the tokens that it stands at."""
    site, subspace = unit.site, unit.subspace
    head = "" if site.head is None else f" head {site.head}"
    count = f" of {subspace.features} features" if subspace.features is not None else ""
    which = "" if subspace.featurizer == "identity" else f", {subspace.featurizer}{count}"
    layer = "" if site.layer is None else f", layer {site.layer}"
    return f"{site.component}{head}{layer}, {_at(at, tokens)}{which}"


def _at(at: Ids, tokens: Sequence[str]) -> str:
    text = f" ({''.join(tokens[t] for t in at)!r})" if tokens else ""
    return f"token {', '.join(map(str, at))}{text}"
