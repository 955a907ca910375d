"""Three featurizers of somebody else's: one trained, one computed, one given."""

from pydantic import Field

from raysearch.core.featurizers import FeaturizerKind, Options


class MirrorOptions(Options):
    """How much of each feature is interchanged."""

    strength: float = Field(default=1.0, gt=0, le=1, description="The share that is put in.")


MIRROR = FeaturizerKind(
    name="mirror",
    fitted="trained",
    implementation="twist.maths:Mirror",
    summary="So many directions, the columns of a product of trained reflections.",
    formula="columns R of a product of reflections, s its strength: x ← x + s (y - x) R Rᵀ.",
    sized=True,
    options=MirrorOptions,
    example="{sizes: [1, 4]}",
)
BUSIEST = FeaturizerKind(
    name="busiest",
    fitted="closed_form",
    implementation="twist.maths:Busiest",
    summary="The coordinates that vary most.",
    formula="the k coordinates of largest variance are interchanged.",
    sized=True,
)
FIRST_HALF = FeaturizerKind(
    name="first_half",
    fitted="given",
    implementation="twist.maths:FirstHalf",
    summary="The first half of the coordinates.",
)
