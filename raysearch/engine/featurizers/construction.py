"""Makes the featurizer of a subspace, and converts featurizers to bytes and back.

Invariants: what a subspace asks and cannot be had is said in one line before anything runs; equal
content, equal bytes; what is read back is hardened and computes what was kept.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from importlib import import_module

import torch
from torch import Tensor

from raysearch.core.featurizers import featurizers, kind_of
from raysearch.core.hypothesis import Subspace, canonical_json
from raysearch.engine.featurizers import safetensors_bytes as tensor_file
from raysearch.engine.featurizers.featurizer import Featurizer, FeaturizerContext, Vectors
from raysearch.engine.featurizers.sae_file import SaeFile
from raysearch.errors import JobError, StoreError
from raysearch.visible_text import one_line

_FORMAT = 1
_FAULTS = (JobError, KeyError, ValueError, TypeError, IndexError, RuntimeError)
"""The errors that `implementation` and `from_tensors` may raise."""


def implementation(name: str) -> type[Featurizer]:
    """Returns the class of a featurizer. Raises: JobError where there is none of that name, or it
    is of a package whose class cannot be imported."""
    place = kind_of(name).implementation
    module, _, attribute = place.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (Exception, SystemExit) as e:
        raise JobError(
            f"{name}: {place} cannot be imported ({type(e).__name__}: {one_line(e)}); mend or "
            f"uninstall the package that has it"
        ) from e
    if not (isinstance(found, type) and issubclass(found, Featurizer)):
        raise JobError(
            f"{name}: {place} is {found!r:.80}; it must be a subclass of "
            f"{Featurizer.__module__}.{Featurizer.__name__}"
        )
    return found


def make_untrained(
    subspace: Subspace,
    width: int,
    generator: torch.Generator,
    heads: int = 0,
    file: SaeFile | None = None,
    activations: Vectors | None = None,
) -> Featurizer:
    """Returns the featurizer of `subspace` for vectors of `width` before training; or as it is,
    where nothing trains it.

    `heads`: how many of equal width lie in the vector (0: none). `file`: of a sparse autoencoder.
    `activations`: from which the components are computed that a mask lies over.

    Raises: JobError for what cannot be had.
    """
    context = FeaturizerContext(
        subspace=subspace,
        width=width,
        generator=generator,
        heads=heads,
        file=file,
        activations=activations,
    )
    return _made(context)


def closed_form(
    subspace: Subspace, activations: Vectors, labels: Sequence[Hashable] = ()
) -> Featurizer:
    """Returns the featurizer that is computed from `activations`, and for a mean difference from
    the class of each.

    Raises: JobError where they do not determine it, ModelError where they are not finite.
    """
    width = activations.shape[1]
    return _made(
        FeaturizerContext(subspace=subspace, width=width, activations=activations, labels=labels)
    )


def _made(context: FeaturizerContext) -> Featurizer:
    _check(context.subspace, context.width)
    return implementation(context.subspace.featurizer).make(context)


def to_bytes(featurizer: Featurizer) -> bytes:
    """Safetensors. Its SHA-256 is the featurizer's digest."""
    about = {"format": _FORMAT, "name": featurizer.name, "width": featurizer.width}
    return tensor_file.write(featurizer.tensors(), "featurizer", canonical_json(about))


def from_bytes(content: bytes) -> Featurizer:
    """Returns the featurizer, hardened, on the CPU. Raises: StoreError for what `to_bytes` did not
    make."""
    try:
        tensors, texts = tensor_file.read(content)
        about = json.loads(texts["featurizer"])
        if about["format"] != _FORMAT:
            raise ValueError(f"format {about['format']}, this version reads {_FORMAT}")
        featurizer = implementation(about["name"]).from_tensors(about["width"], tensors)
        _check_whole(featurizer, about["width"])
    except _FAULTS as e:
        raise StoreError(
            f"this is no saved featurizer: {_said(e)}; fit it again, or take the file that fit made"
        ) from e
    return featurizer


def from_parts(subspace: Subspace, width: int, tensors: Mapping[str, Tensor]) -> Featurizer:
    """Returns the featurizer of `subspace`, hardened, on the CPU, whose `tensors()` these are.
    Raises: StoreError where they do not fit it."""
    try:
        featurizer = implementation(subspace.featurizer).from_tensors(width, tensors)
        _check_whole(featurizer, width)
        if subspace.features is not None and featurizer.count not in (None, subspace.features):
            raise ValueError(
                f"tensors of {featurizer.count} features, said to be of {subspace.features}"
            )
    except _FAULTS as e:
        raise StoreError(
            f"the tensors do not fit its subspace ({subspace.featurizer}): {_said(e)}"
        ) from e
    return featurizer


def _said(e: Exception) -> str:
    return f"{e} is missing or unknown" if isinstance(e, KeyError) else str(e)


@torch.no_grad()
def _check_whole(featurizer: Featurizer, width: int) -> None:
    """Raises: ValueError, RuntimeError where it cannot be used."""
    if featurizer.width != width:
        raise ValueError(f"tensors for vectors of {featurizer.width}, said to be for {width}")
    featurizer.check()


def _check(subspace: Subspace, width: int) -> None:
    """Raises: JobError for what no featurizer of that name can be."""
    name, features = subspace.featurizer, subspace.features
    kind = kind_of(name)
    if kind.sized and features is None and kind.fitted != "closed_form":
        raise JobError(f"{name}: how many features is not said; name a number from 1 to {width}")
    if features is not None and not 1 <= features <= width:
        raise JobError(f"{name}: {features} features of a vector of {width}; ask for 1 to {width}")
    if subspace.coordinates is not None and not kind.indexed:
        some = ", ".join(kind.name for kind in featurizers().values() if kind.indexed)
        raise JobError(f"{name}: coordinates cannot be chosen; only of {some}")
    has_size = kind.sized or kind.fitted == "closed_form" or subspace.basis == "pca"
    if (
        features is not None
        and not has_size
        and (name != "identity" or features != width or subspace.coordinates)
    ):
        raise JobError(f"{name}: has no number of features to choose, got {features}; leave it out")
