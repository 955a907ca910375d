"""The captured vectors of many units, in one table for each width, so that all fits of a step read
theirs at once.

Invariants: a unit's pairs follow each other in the table of its width.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.engine.training.captured_unit import CapturedUnit

Item = TypeVar("Item")
BaseAndSource = tuple[Float[Tensor, "vector width"], Float[Tensor, "vector width"]]


class UnitVectors:
    """Activations of units by width. `first`: by the id of a unit, the index of its first pair
    among those of its width."""

    def __init__(self, units: Iterable[CapturedUnit]) -> None:
        distinct = {id(unit): unit for unit in units}.values()
        widths = by_width((unit.width, unit) for unit in distinct)
        self.first: dict[int, int] = {}
        for some in widths.values():
            first = 0
            for unit in some:
                self.first[id(unit)] = first
                first += len(unit.rows)
        self._both = {
            width: (torch.cat([u.base for u in some]), torch.cat([u.source for u in some]))
            for width, some in widths.items()
        }

    @property
    def device(self) -> torch.device:
        return next(iter(self._both.values()))[0].device

    def at(
        self, pairs: Mapping[int, Int[Tensor, "vector"]], sizes: Mapping[int, list[int]]
    ) -> dict[int, Iterator[BaseAndSource]]:
        """Returns base and source at some pairs of each width, in parts of these sizes."""
        return {
            width: zip(
                *(torch.split(t.index_select(0, some), sizes[width]) for t in self._both[width]),
                strict=True,
            )
            for width, some in pairs.items()
        }


def by_width(items: Iterable[tuple[int, Item]]) -> dict[int, list[Item]]:
    """Returns the items of each width, in their order."""
    found: dict[int, list[Item]] = {}
    for width, item in items:
        found.setdefault(width, []).append(item)
    return found
