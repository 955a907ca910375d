"""The units of a hypothesis, from the JSON of the table `hypotheses`, in a few words.

Invariants: two hypotheses with other units in one layer never read the same; layers of source sites
are told as steps from the unit's own.
"""

import json
from dataclasses import dataclass
from typing import Any

from raysearch.core.hypothesis import layer_of


@dataclass(frozen=True, slots=True)
class UnitText:
    """One unit without its layer. `subspace`, `lender` (name and site of the source), `operation`
    in words; "" for the whole vector, the same site, an interchange."""

    component: str
    head: int | None
    position: str
    subspace: str = ""
    lender: str = ""
    operation: str = ""

    @property
    def is_featurized(self) -> bool:
        """Whether its subspace is one of a featurizer, not coordinates or the whole vector."""
        return bool(self.subspace) and not self.subspace.startswith("coordinates")

    @property
    def extra(self) -> tuple[str, ...]:
        """What there is to say beside component, head and position."""
        return tuple(w for w in (self.subspace, self.lender, self.operation) if w)

    @property
    def words(self) -> str:
        """All of it, e.g. "head 3 at last, coordinates 0–15"."""
        head = "" if self.head is None else f" {self.head}"
        return ", ".join([f"{self.component}{head} at {self.position}", *self.extra])


def places(units: str) -> tuple[UnitText, ...]:
    """The units without their layers, in their order."""
    return tuple(_place(u) for u in json.loads(units))


def words(units: str) -> str:
    """The units with their layers, where they are of one: "9: head 3 at last + 10: residual at
    last", "embed.output at last"."""
    found = json.loads(units)
    return " + ".join(_words(_layer(u["site"]), _place(u)) for u in found)


def is_plain(units: str) -> bool:
    """Whether layer, component, head and position say all: one unit, the whole vector, from its own
    site of the only source."""
    found = places(units)
    return len(found) == 1 and not found[0].extra


def _place(unit: dict[str, Any]) -> UnitText:
    site = unit["site"]
    return UnitText(
        site["component"],
        site.get("head"),
        site["position"],
        _subspace(unit["subspace"]),
        _lender(unit),
        f"{operation} ablation" if (operation := unit.get("operation")) else "",
    )


def _words(layer: int | None, place: UnitText) -> str:
    return place.words if layer is None else f"{layer}: {place.words}"


def _layer(site: dict[str, Any]) -> int | None:
    """None for what is of no layer; runs of before say 0."""
    layer: int | None = layer_of(site["component"], site["layer"])
    return layer


def _subspace(subspace: dict[str, Any]) -> str:
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


def _lender(unit: dict[str, Any]) -> str:
    site, name, own = unit.get("source_site"), unit.get("source"), unit["site"]
    if site is None:
        return f"from {name}" if name else ""
    head = "" if site.get("head") is None else f" {site['head']}"
    step = _step(_layer(site), _layer(own))
    return (
        f"from {f'{name}, ' if name else ''}{step}{site['component']}{head} at {site['position']}"
    )


def _step(theirs: int | None, own: int | None) -> str:
    """From the unit's own layer to that of its source site."""
    if theirs is None or theirs == own:
        return ""
    return f"layer {theirs}, " if own is None else f"{theirs - own:+d} "


def _runs(numbers: list[int]) -> str:
    """0–3, 7 for [0, 1, 2, 3, 7]."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs)
