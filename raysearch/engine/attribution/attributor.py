"""Attribution: estimates the effect of interchanges to first order, at all sites at once
(proposers/attribution.py has the purpose and the sources).

    move of a unit   = sum over its tokens and numbers of
                       gradient · (activation of the source - activation of the base)
    gradient         = that of the lead, [logit of the base's answer - logit of the counterfactual],
                       at the first token where these differ, after their common tokens
    effect on a pair = min(1, |move| / |lead|): the share of the lead that would move, either way

Where a network is far from linear, single pairs have moves of many times the lead and of the wrong
sign: means of raw moves missed more true sites (docs/reference/searches.md has figures). Tokens of
a unit count as if none affected another, which is true except for time steps of a recurrent
network.

One run of each source and, for each counterfactual of a pair, one run of the base with one backward
pass serve all units. Invariants: effects depend on the batch by rounding only; batches are checked
against single runs before they are used.
"""

import logging
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.core.events import Encoded, Ids
from raysearch.core.hypothesis import Intervention, Unit
from raysearch.engine.attribution.gradients import AtPoints, GradientProbe, LeadQuery, ProbedRun
from raysearch.engine.execution.memory import RowLimit, run_in_halves
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import ModelInput, Network, batches, tokens_of
from raysearch.engine.networks.point import Point
from raysearch.engine.networks.to_device import on_device
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.edits import chosen
from raysearch.engine.patching.rows import FeatureIndices, Patch
from raysearch.errors import RaysearchError

log = logging.getLogger(__name__)

DIGITS = 6
"""Significant digits of a reported effect; more would be float32 noise."""
TRIED = 2
"""Number of rows on which batches are checked against single runs."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A pair and one of its counterfactuals, with the variables that have it."""

    pair: Encoded
    query: LeadQuery
    variables: tuple[str, ...]


_Patches = Mapping[int, Patch]
"""The interchange of a unit, by the index of the pair."""
_Span = tuple[Unit, FeatureIndices]
"""A unit and the columns of its vector that belong to the requested unit (None: all)."""


class Attributor:
    """Computes effects on one network, at most `limit.rows` rows in a forward and backward pass;
    `plain`: one by one.

    `tolerance` (logits): moves of a batch may be off by a quarter of it, times the largest move if
    that is above 1.
    """

    def __init__(
        self,
        network: Network,
        hook_points: Components,
        plain: bool,
        limit: RowLimit,
        tolerance: float,
        meter: UsageMeter | None = None,
    ) -> None:
        self._network = network
        self._hook_points = hook_points
        self._limit = limit
        self._tolerance = tolerance
        self._meter = UsageMeter() if meter is None else meter
        self._plain = GradientProbe(network, hook_points, one_by_one=True)
        self._probes = self._plain if plain else None  # None: batches have not been checked yet

    def effects(
        self, pairs: Sequence[Encoded], units: Sequence[Unit]
    ) -> dict[str, tuple[float | None, ...]]:
        """Returns for each variable and unit the sum of effects over its change pairs; None if a
        unit cannot be interchanged on a pair.

        Raises: ArithmeticError for an effect that is not finite.
        """
        spans = [self._span(unit) for unit in units]
        patches = {unit: self._patches(unit, pairs) for unit, _ in dict.fromkeys(spans)}
        known = {unit: of for unit, of in patches.items() if of is not None}
        requested = [span for span in spans if span[0] in known]
        comparisons = [comparison for pair in pairs for comparison in _comparisons(pair)]
        by_variable: dict[str, list[list[float]]] = {
            variable: [] for variable in (pairs[0].counterfactual if pairs else ())
        }
        for comparison, effects in self._all(comparisons, known, list(dict.fromkeys(requested))):
            for variable in comparison.variables:
                by_variable[variable].append(effects)
        place = {span: at for at, span in enumerate(dict.fromkeys(requested))}
        return {
            variable: tuple(
                _sum([e[place[span]] for e in of_comparisons]) if span in place else None
                for span in spans
            )
            for variable, of_comparisons in by_variable.items()
        }

    def _span(self, unit: Unit) -> _Span:
        """Returns the unit without its head, and the head's columns: all heads of a vector are read
        together."""
        head = unit.site.head
        if head is None or unit.source_site is not None:
            return unit, None
        hook_point = self._hook_points.at(Point(unit.site.layer, unit.site.component))
        width = hook_point.width // hook_point.heads
        return replace(unit, site=replace(unit.site, head=None)), range(
            head * width, (head + 1) * width
        )

    def _patches(self, unit: Unit, pairs: Sequence[Encoded]) -> _Patches | None:
        """Returns the unit's patches; None if one of the pairs does not allow this interchange,
        since the unit would fail there."""
        intervention = Intervention((unit,))
        try:
            return {
                pair.index: build_row(pair, intervention, self._hook_points).patches[0]
                for pair in pairs
            }
        except RaysearchError:
            return None

    def _all(
        self,
        comparisons: Sequence[_Comparison],
        patches: Mapping[Unit, _Patches],
        spans: Sequence[_Span],
    ) -> Iterator[tuple[_Comparison, list[float]]]:
        """Yields each comparison with the effects of all spans."""
        if not comparisons or not spans:
            return
        probes = self._trusted_probe(comparisons, patches, spans)
        rows = 1 if probes.one_by_one else self._limit.rows
        for batch in batches(
            comparisons, lambda comparison: self._network.batch_key(comparison.query.base), rows
        ):
            done = run_in_halves(
                batch, lambda part: (part, *self._moves(probes, part, patches, spans)), self._limit
            )
            for part, moves, leads in done:
                shares = moves.abs() / leads.abs().clamp(min=torch.finfo(leads.dtype).tiny)[:, None]
                yield from zip(part, shares.clamp(max=1).tolist(), strict=True)

    def _moves(
        self,
        probes: GradientProbe,
        comparisons: Sequence[_Comparison],
        patches: Mapping[Unit, _Patches],
        spans: Sequence[_Span],
    ) -> tuple[Float[Tensor, "comparison span"], Float[Tensor, "comparison"]]:
        """Computes moves and leads of comparisons with one batch key."""
        points = list(
            dict.fromkeys(
                patch.point for of_pairs in patches.values() for patch in of_pairs.values()
            )
        )
        bases = probes.lead_gradients([comparison.query for comparison in comparisons], points)
        self._meter.ran(sum(tokens_of(comparison.query.base) for comparison in comparisons))
        sources = self._sources(probes, comparisons, patches)
        products: dict[Unit, Float[Tensor, "comparison width"]] = {}
        for unit, of_pairs in patches.items():
            rows = zip(comparisons, bases, strict=True)
            products[unit] = torch.stack(
                [_product(of_pairs[t.pair.index], base, sources) for t, base in rows]
            )
        moves = [_sum_of(products[unit], features) for unit, features in spans]
        leads = torch.tensor([base.lead for base in bases], dtype=torch.float64)
        return torch.stack([of.to(moves[0].device) for of in moves], dim=1).cpu(), leads

    def _sources(
        self,
        probes: GradientProbe,
        comparisons: Sequence[_Comparison],
        patches: Mapping[Unit, _Patches],
    ) -> dict[ModelInput, AtPoints]:
        """Runs each source that these comparisons read from."""
        needed = [
            of[comparison.pair.index].sources[0]
            for of in patches.values()
            for comparison in comparisons
        ]
        points = list(dict.fromkeys(source.point for source in needed))
        seen: dict[ModelInput, AtPoints] = {}
        rows = 1 if probes.one_by_one else self._limit.rows
        for batch in batches(
            list(dict.fromkeys(s.run.base for s in needed)), self._network.batch_key, rows
        ):
            seen.update(zip(batch, probes.activations(batch, points), strict=True))
            self._meter.ran(sum(map(tokens_of, batch)))
        return seen

    def _trusted_probe(
        self,
        comparisons: Sequence[_Comparison],
        patches: Mapping[Unit, _Patches],
        spans: Sequence[_Span],
    ) -> GradientProbe:
        """Returns batched gradients if they agree with single runs on a few rows, else single runs,
        with a warning; decides once."""
        if self._probes is None:
            tried = self._largest_batch(comparisons)[:TRIED]
            alone = torch.cat(
                [self._moves(self._plain, [comparison], patches, spans)[0] for comparison in tried]
            )
            batched = GradientProbe(self._network, self._hook_points, one_by_one=False)
            off = float((self._moves(batched, tried, patches, spans)[0] - alone).abs().max())
            allowed = self._tolerance / 4 * max(1.0, float(alone.abs().max()))
            self._probes = batched if off <= allowed else self._plain
            if self._probes is self._plain:
                log.warning(
                    "%s: gradients of a batch are off: moves by up to %.2g logits (allowed %.2g): "
                    "bases are run one by one, slowly",
                    self._network.name,
                    off,
                    allowed,
                )
        return self._probes

    def _largest_batch(self, comparisons: Sequence[_Comparison]) -> list[_Comparison]:
        """Returns one comparison of each base, of the batch key that most bases have."""
        together: dict[Hashable, dict[ModelInput, _Comparison]] = {}
        for comparison in comparisons:
            base = comparison.query.base
            together.setdefault(self._network.batch_key(base), {}).setdefault(base, comparison)
        return list(max(together.values(), key=len).values())


def _comparisons(pair: Encoded) -> Iterator[_Comparison]:
    """Yields one comparison for each counterfactual that differs from the base's answer; none if
    one of the two is a prefix of the other."""
    own = pair.answers["base"]
    by_answer: dict[Ids, list[str]] = {}
    for variable, ids in pair.counterfactual.items():
        if ids != own:
            by_answer.setdefault(ids, []).append(variable)
    for ids, variables in by_answer.items():
        shared = sum(
            1 for _ in takewhile(lambda both: both[0] == both[1], zip(ids, own, strict=False))
        )
        if shared == min(len(ids), len(own)):
            continue
        given = pair.base
        if shared:
            assert isinstance(given, tuple), "only a text goes on"
            given = (*given, *ids[:shared])
        yield _Comparison(pair, LeadQuery(given, ids[shared], own[shared]), tuple(variables))


def _product(
    patch: Patch, base: ProbedRun, sources: Mapping[ModelInput, AtPoints]
) -> Float[Tensor, "feature"]:
    """Multiplies gradient and difference elementwise and sums over tokens, in double precision
    because terms cancel."""
    (source,) = patch.sources
    theirs = chosen(sources[source.run.base][source.point], source.tokens, source.features).double()
    ours, gradient = (
        chosen(of[patch.point], patch.tokens, patch.features).double()
        for of in (base.activations, base.gradients)
    )
    product: Tensor = (gradient * (theirs.to(ours.device) - ours)).sum(0)
    return product


def _sum_of(
    products: Float[Tensor, "comparison width"], features: FeatureIndices
) -> Float[Tensor, "comparison"]:
    """Sums the products of some features."""
    if features is None:
        return products.sum(1)
    return products[:, on_device(features, products.device)].sum(1)


def _sum(effects: Sequence[float]) -> float:
    """Returns the sum, rounded. Raises: ArithmeticError if it is not finite."""
    total = math.fsum(effects)
    if not math.isfinite(total):
        raise ArithmeticError(
            f"an effect is {total}: the gradients of the model's logits are no numbers"
        )
    return float(f"{total:.{DIGITS}g}")
