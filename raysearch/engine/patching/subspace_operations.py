"""Operations of subspaces: plain, of a subspace that was trained or is given, or a placebo for one
of these.

Invariants: trained featurizers are identified by the digest of their content; a random subspace is
a function of its unit, the same on every replica.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from raysearch.core.featurizers import IDENTITY, is_fitted
from raysearch.core.hypothesis import Intervention, Unit, content_id, layer_path, to_plain
from raysearch.engine.featurizers.construction import from_bytes, make_untrained
from raysearch.engine.featurizers.featurizer import Featurizer
from raysearch.engine.featurizers.sae_file import SaeFile
from raysearch.engine.patching.operations import FORMULAS, Featurized, Operation, Placebo
from raysearch.errors import JobError, StoreError

MAX_FEATURIZERS = 256
"""Featurizers that are kept ready: those used last."""

PLAIN = (IDENTITY.name,)
"""Featurizers whose features are coordinates of the vector itself: nothing is to be computed."""


class Featurizers:
    """The featurizers that a replica has at hand, on `device`. `files`: paths of sparse
    autoencoders, `{layer}` standing for it."""

    def __init__(self, device: torch.device, files: Sequence[str] = ()) -> None:
        self._device = device
        self._files = tuple(files)
        self._ready: OrderedDict[str, Featurizer] = OrderedDict()  # least recently used first

    def take(self, tensors: Mapping[str, bytes], wanted: Iterable[str]) -> None:
        """Makes ready what a task brings: the digests that it wants. Raises: StoreError for a
        content that is no featurizer."""
        needed = list(dict.fromkeys(wanted))
        for digest in needed:
            if digest in self._ready:
                self._ready.move_to_end(digest)
            else:
                self._keep(digest, from_bytes(tensors[digest]), least=len(needed))

    def kind_of(self, intervention: Intervention, unit: Unit, width: int) -> Operation:
        """Returns the operation at `unit`, all of whose tokens form one vector of `width` numbers.
        Raises: JobError if it is impossible."""
        kind: Operation = FORMULAS[intervention.kind]()
        if unit.subspace.featurizer not in PLAIN:
            kind = self._featurized(intervention, unit, width)
        if intervention.control_kind.random_direction:
            return Placebo(kind, content_id([intervention.id, width]))
        return kind

    def _featurized(self, intervention: Intervention, unit: Unit, width: int) -> Featurized:
        if intervention.kind != "interchange":
            raise JobError(
                f"{intervention.kind} of a subspace ({unit.subspace.featurizer}) has no meaning "
                f"here; use interchange, or full or coordinates"
            )
        if is_fitted(unit.subspace.featurizer) or intervention.fit is not None:
            digest = intervention.fit
            assert digest is not None, "what is fit is fit before it is measured"
            assert len(intervention.units) == 1, "one unit is fit"
        else:
            digest = _drawn_from(intervention, unit, width)
            if digest not in self._ready:
                self._keep(digest, draw_featurizer(intervention, unit, width, self._files))
        featurizer = self._ready[digest]
        if featurizer.width != width:
            raise JobError(
                f"{unit.subspace.featurizer}: was made for vectors of {featurizer.width}, "
                f"{unit.site.description} at "
                f"{unit.site.position!r} has {width}; use it where it was fit, on as many tokens"
            )
        self._ready.move_to_end(digest)
        return Featurized(digest, featurizer)

    def _keep(self, digest: str, featurizer: Featurizer, least: int = 0) -> None:
        """Lets go of those used longest ago, but never of the `least` that a task has just
        brought."""
        self._ready[digest] = featurizer.to(self._device).requires_grad_(False)
        while len(self._ready) > max(MAX_FEATURIZERS, least):
            self._ready.popitem(last=False)


def draw_featurizer(
    intervention: Intervention, unit: Unit, width: int, files: Sequence[str] = ()
) -> Featurizer:
    """Returns a featurizer that needs no training: a function of the intervention, the unit and its
    width; for an autoencoder the one of `files` (paths, with `{layer}`) that the unit names.
    Raises: JobError; StoreError if none of them is that one."""
    seed = int(_drawn_from(intervention, unit, width), 16) % 2**63
    return make_untrained(
        unit.subspace, width, torch.Generator().manual_seed(seed), file=_file(unit, files)
    )


def _file(unit: Unit, files: Sequence[str]) -> SaeFile | None:
    """Returns the file that the unit's subspace names by its digest."""
    wanted = unit.subspace.file
    if wanted is None:
        return None
    for path in files:
        place = Path(layer_path(path, unit.site.layer))
        file = SaeFile.at(place) if place.is_file() else None
        if file is not None and file.digest == wanted:
            return file
    raise StoreError(
        f"{', '.join(files)}: none is the file (with the cfg.json beside it, if any) of digest "
        f"{wanted[:12]} with which the run began; "
        "put it back"
    )


def _drawn_from(intervention: Intervention, unit: Unit, width: int) -> str:
    """Returns the id that a drawn subspace follows from: the unit and its width alone, so that an
    estimate reads the same subspace; the control `random_subspace` has another."""
    return content_id([to_plain(unit), intervention.control_kind.random_subspace, width])
