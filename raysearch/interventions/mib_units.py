"""Converts units to MIB's names, and subspaces to the directions that MIB can express.

    ResidualStream(Layer-9,Token-country)    the residual after block 9, at the task's position
                                             "country"
    AttentionHead(Layer-9,Head-3,Token-all)  head 3's input to the attention's output projection

MIB's "last_token" is our "last". The input of block L is the residual of layer L - 1, so -1 is the
input of the first; later versions mark it with block_input.

Invariants: a subspace becomes orthonormal directions R with x <- x + (y - x) R Rᵀ exactly, or is
refused with the reason.
"""

import re

import torch
from torch import Tensor

from raysearch.causal import LAST
from raysearch.core.hypothesis import Intervention, Site
from raysearch.engine.featurizers.identity import Identity
from raysearch.interventions.saved_intervention import SavedIntervention
from raysearch.interventions.subspace_tensors import width_of

LAST_TOKEN = "last_token"

_UNIT = re.compile(
    r"(?P<kind>ResidualStream|AttentionHead)"
    r"\(Layer[-_:](?P<layer>-?\d+)(?:,Head[-_:](?P<head>\d+))?"
    r"(?:,(?P<side>block_output|block_input))?,Token[-_:](?P<token>[^/]+)\)"
)
_TOKEN = re.compile(r"[^/(),\x00-\x1f]+")


class InexpressibleError(Exception):
    """Something that MIB cannot express, or we cannot read; the text says why in one line."""


def unit_name(intervention: Intervention) -> str:
    """Returns the name of its files without endings. Raises: InexpressibleError."""
    check_alone(intervention)
    site = intervention.units[0].site
    token = LAST_TOKEN if site.position == LAST else site.position
    if not _TOKEN.fullmatch(token):
        raise InexpressibleError(f"position {token!r} cannot stand in the name of a file")
    if site.component == "residual":
        return f"ResidualStream(Layer-{site.layer},Token-{token})"
    if site.component == "block_input" and site.layer is not None:
        return f"ResidualStream(Layer-{site.layer - 1},Token-{token})"
    if site.component == "head" and site.head is not None:
        return f"AttentionHead(Layer-{site.layer},Head-{site.head},Token-{token})"
    raise InexpressibleError(
        f"MIB has no unit for {site.component}; it has the residual, and single heads"
    )


def check_alone(intervention: Intervention) -> None:
    """Raises InexpressibleError unless it interchanges one unit with the same site of a source."""
    if intervention.kind != "interchange" or intervention.control is not None:
        raise InexpressibleError(
            f"it is {intervention.control or intervention.kind}, and no plain interchange"
        )
    if len(intervention.units) != 1:
        raise InexpressibleError(
            f"it has {len(intervention.units)} units at once, and a file is of one"
        )
    (unit,) = intervention.units
    if unit.source_site is not None or unit.source is not None:
        raise InexpressibleError(
            "it takes from another site or a named source, and a file is of one site and source"
        )


def site_of(name: str) -> Site:
    """Parses a unit's name. Raises: InexpressibleError."""
    found = _UNIT.fullmatch(name)
    if found is None or (found["kind"] == "AttentionHead") != (found["head"] is not None):
        raise InexpressibleError(
            "its name is no unit of MIB; it should be ResidualStream(Layer-L,Token-T) or "
            "AttentionHead(Layer-L,Head-H,Token-T)"
        )
    layer, position = int(found["layer"]), LAST if found["token"] == LAST_TOKEN else found["token"]
    if found["head"] is not None:
        return Site(layer, "head", position, int(found["head"]))
    if layer == -1 or found["side"] == "block_input":
        return Site(max(layer, 0), "block_input", position)
    return Site(layer, "residual", position)


def directions_of(saved: SavedIntervention) -> Tensor | None:
    """Returns the directions R (width, k) of its only unit; None for the whole vector.

    Raises: InexpressibleError if no R is equivalent, StoreError if the tensors do not fit.
    """
    (unit,) = saved.intervention.units
    featurizer = saved.featurizer
    if featurizer is None:
        coordinates, width = unit.subspace.coordinates, width_of(saved.tensors)
        if coordinates is None:
            return None
        if width is None:
            raise InexpressibleError(
                f"{len(coordinates)} coordinates of a vector whose width is not known here"
            )
        featurizer = _identity(width, coordinates)
    try:
        with torch.no_grad():
            directions = featurizer.orthonormal_directions()
    except ValueError as e:
        raise InexpressibleError(str(e)) from e
    if not directions.shape[1]:
        raise InexpressibleError(
            f"its {unit.subspace.featurizer} has kept no feature: nothing is interchanged"
        )
    return directions.float().clone(memory_format=torch.contiguous_format)


def _identity(width: int, coordinates: tuple[int, ...]) -> Identity:
    try:
        return Identity(width, coordinates)
    except ValueError as e:
        raise InexpressibleError(str(e)) from e
