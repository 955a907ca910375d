"""A swap in a network on tensors: one base, one source, an activation or a saved intervention.

Invariants: a swap is run by the oracle; a position is a token of the activation that is patched, by
its index.
"""

from collections.abc import Sequence

from raysearch.causal import LAST, Stimulus
from raysearch.core.events import Encoded, Ids
from raysearch.core.hypothesis import Site
from raysearch.engine.execution.canonical_runner import CanonicalRunner
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.point import Point
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.rows import Row
from raysearch.errors import PositionError
from raysearch.interventions.apply import (
    Positions,
    PositionSpec,
    Prepared,
    locate_positions,
    source_name,
)
from raysearch.interventions.constants import check_constants
from raysearch.notebook.swap_rows import canonical_logits, where_words
from raysearch.notebook.views import Answers, Swap


def swap_tensors(
    network: TensorNetwork,
    made: Prepared,
    base: Stimulus,
    source: Stimulus,
    position: Positions | None,
    source_position: Positions | None,
) -> Swap:
    """Runs `base` under the intervention. Raises: PositionError, ModelError, JobError, StoreError,
    PairsError for one that does not fit the network."""
    components = Components(network)
    own = base, position
    theirs = own if made.intervention.is_ablation else (source, source_position)
    row = _row(components, made, *own, *theirs)
    check_constants(row, made.intervention, made.constants)
    plain = [network.plain(one) for one in (base, source)]
    ids = int(plain[0].argmax()), int(plain[1].argmax())
    words = str(ids[0]), str(ids[1])
    known = Answers(*words, *ids, words, ids)
    canonical = CanonicalRunner(network, components)
    logits = canonical_logits(network, canonical, row, made.constants)
    best = int(logits.argmax())
    where = where_words(made.intervention, row)
    return Swap(where, known, str(best), best, known.difference(plain[0]), known.difference(logits))


def _row(
    components: Components,
    made: Prepared,
    base: Stimulus,
    position: Positions | None,
    source: Stimulus,
    source_position: Positions | None,
) -> Row:
    intervention = made.as_built
    sites = [unit.site for unit in intervention.units]
    at = _located(components, sites, base, position, {}, "position")
    taken = [unit.source_site or unit.site for unit in intervention.units]
    theirs = _located(components, taken, source, source_position, at, "source_position")
    name = source_name(intervention, "source")
    pair = Encoded(0, base, {name: source}, at, {name: theirs}, {}, {})
    return build_row(pair, intervention, components, made.featurizers)


def _located(
    components: Components,
    sites: Sequence[Site],
    given: Stimulus,
    positions: Positions | None,
    default_positions: dict[str, Ids],
    key: str,
) -> dict[str, Ids]:
    """Returns the tokens of each site's position, among those that all sites of this position have;
    where that is one token, the position is that one."""
    counts: dict[str, int] = {}
    for site in sites:
        count = 1 + (components.last(Point(site.layer, site.component), given) or 0)
        counts[site.position] = min(count, counts.get(site.position, count))
    shown = f"tensor of shape {list(given.shape)}"

    def token(name: str, position: PositionSpec) -> Ids:
        count = counts[name]
        if isinstance(position, bool) or not isinstance(position, int):
            raise PositionError(f"{key}: {position!r:.60} is no token of a {shown}; give its index")
        if not -count <= position < count:
            raise PositionError(
                f"{key}: {position} is no token of a {shown} there; it has 0..{count - 1}, -1 is "
                f"the last"
            )
        return (position % count,)

    default_positions = default_positions | {
        name: (0,) for name, count in counts.items() if count == 1
    }
    length = counts.get(LAST, 1)
    return locate_positions(shown, length, counts, positions, token, default_positions, key)
