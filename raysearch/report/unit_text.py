"""Describes the units of a hypothesis in a few words, from the JSON of the table `hypotheses`.

Invariants: two hypotheses with different units in one layer never read the same; a source site's
layer is given relative to the unit's own.
"""

import json
from dataclasses import dataclass
from typing import Any

from raysearch.core.featurizers import FULL
from raysearch.core.hypothesis import layer_of


@dataclass(frozen=True, slots=True)
class UnitText:
    """One unit in words, without its layer.

    `subspace`: "" for the whole vector; `source`: name and site of the source, "" for the same
    site; `operation`: "" for an interchange.
    """

    component: str
    head: int | None
    position: str
    subspace: str = ""
    source: str = ""
    operation: str = ""

    @property
    def is_featurized(self) -> bool:
        """Says whether it uses a featurizer, not coordinates or the whole vector."""
        return bool(self.subspace) and not self.subspace.startswith("coordinates")

    @property
    def extra(self) -> tuple[str, ...]:
        """The words besides component, head and position."""
        return tuple(w for w in (self.subspace, self.source, self.operation) if w)

    @property
    def words(self) -> str:
        """The whole description, e.g. "head 3 at last, coordinates 0–15"."""
        head = "" if self.head is None else f" {self.head}"
        return ", ".join([f"{self.component}{head} at {self.position}", *self.extra])


def unit_texts(units: str) -> tuple[UnitText, ...]:
    """Returns the units in order, without their layers."""
    return tuple(_unit_text(u) for u in json.loads(units))


def words(units: str) -> str:
    """Describes the units with their layers: "9: head 3 at last + 10: residual at last".

    A unit outside of all layers has none: "embed.output at last".
    """
    found = json.loads(units)
    return " + ".join(_layer_and_unit(_layer(u["site"]), _unit_text(u)) for u in found)


def subspace_words(units: str) -> str | None:
    """Names the subspace of the units, as jobs do: "full", "das 8"; None where they differ."""
    found = {unit.subspace or FULL for unit in unit_texts(units)}
    return found.pop() if len(found) == 1 else None


def is_plain(units: str) -> bool:
    """Says whether layer, component, head and position say all: one whole vector from its own
    site."""
    found = unit_texts(units)
    return len(found) == 1 and not found[0].extra


def _unit_text(unit: dict[str, Any]) -> UnitText:
    site = unit["site"]
    return UnitText(
        site["component"],
        site.get("head"),
        site["position"],
        _subspace_text(unit["subspace"]),
        _source_text(unit),
        f"{operation} ablation" if (operation := unit.get("operation")) else "",
    )


def _layer_and_unit(layer: int | None, unit: UnitText) -> str:
    return unit.words if layer is None else f"{layer}: {unit.words}"


def _layer(site: dict[str, Any]) -> int | None:
    """Returns a site's layer; None outside of all layers, for which older runs store 0."""
    layer: int | None = layer_of(site["component"], site["layer"])
    return layer


def _subspace_text(subspace: dict[str, Any]) -> str:
    coordinates = subspace.get("coordinates")
    if coordinates is not None:
        return f"coordinates {_runs(coordinates)}"
    if subspace["featurizer"] == "identity":
        return ""
    of = f" over {subspace['basis']}" if subspace.get("basis") else ""
    size = "" if subspace["features"] is None else f" {subspace['features']}"
    options = json.loads(subspace.get("options") or "{}")
    chosen = ", ".join(f"{name} {value}" for name, value in options.items())
    return f"{subspace['featurizer']}{of}{size}{f' ({chosen})' if chosen else ''}"


def _source_text(unit: dict[str, Any]) -> str:
    site, name, own = unit.get("source_site"), unit.get("source"), unit["site"]
    if site is None:
        return f"from {name}" if name else ""
    head = "" if site.get("head") is None else f" {site['head']}"
    place = f"{site['component']}{head} at {site['position']}"
    depth = _source_depth(_layer(site), _layer(own))
    return f"from {', '.join(filter(None, (name, place, depth)))}"


def _source_depth(theirs: int | None, own: int | None) -> str:
    """Says in which layer the source site is: relative to the unit's own, if that has one.

    "" for the same layer, and for a source site outside of all layers.
    """
    if theirs is None or theirs == own:
        return ""
    if own is None:
        return f"in layer {theirs}"
    steps = abs(theirs - own)
    return f"{steps} layer{'s' if steps > 1 else ''} {'above' if theirs > own else 'below'}"


def _runs(numbers: list[int]) -> str:
    """Formats [0, 1, 2, 3, 7] as "0–3, 7"."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs)
