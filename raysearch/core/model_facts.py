"""Facts that a worker reports of a model that it has loaded: its shapes, and how it is run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ComponentFacts:
    """A component that the job names, as this model has it.

    Args:
        layers: the layers that have it; (None,) if the model has it once.
        width: size of its vector, all heads together; 0 if unknown before loading, or different by
            layer.
        heads: number of heads that it divides into; 0 for none.
        widths: size of the vector in each of `layers`, if they differ.
        tokens: number of tokens of its activation on the first base; 0 if it has the input's
            tokens.
    """

    name: str
    layers: tuple[int | None, ...]
    width: int
    heads: int
    widths: tuple[int, ...] = ()
    tokens: int = 0

    def width_in(self, layer: int | None) -> int:
        """Returns the size of the vector in `layer`, one of `layers`; 0 if it is not known."""
        return self.widths[self.layers.index(layer)] if self.widths else self.width


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts about the model that the driver knows.

    Args:
        width: size of the residual; 0 if layers may differ.
        heads: attention heads of a layer.
        path: how the model is run: "replay", "batched" or "plain", the first that passed the
            self-check.
        components: the components that the job names; the residual if it names none.
        tokens: number of tokens of every input, if the job asks for all positions.
        commit: the commit of the hub's repository that was loaded, since a branch may move.
        unused: one line for each file or part of the model folder that is not loaded.
        wave_tokens: most tokens that the rows of a wave compute together; 0: no limit but that of
            rows.
    """

    layers: int
    width: int
    heads: int
    digest: str
    dtype: str
    device: str
    path: str
    components: tuple[ComponentFacts, ...] = ()
    tokens: int = 0
    commit: str | None = None
    unused: tuple[str, ...] = ()
    wave_tokens: int = 0
