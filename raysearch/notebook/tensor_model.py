"""Looks into one network on tensors: the classes that it finds most likely, and what changes when
an activation of one input is put into the run of another.

    net = rs.TensorModel(module)  # or rs.TensorModel.load("my_net.py:network")
    net.predict(torch.rand(8), top=3)
    net.swap(base, source, component="embed")
    net.swap(base, source, rs.load_intervention("found"))
    rs.run(problem=problem, model=net, space={"layers": "all", "positions": ["last"]})

Invariants: the module stays as it is.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch.causal import LAST, Stimulus
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.model_source import ModelSource
from raysearch.engine.encoding.encode_tensors import not_run_error
from raysearch.engine.loading.factory import load_module
from raysearch.engine.loading.given_model import GivenModel
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.errors import JobError, ModelError, PairsError
from raysearch.interventions.apply import Positions, prepare
from raysearch.interventions.saved_intervention import SavedIntervention
from raysearch.job.unit_keys import component_name
from raysearch.notebook.prediction import NextTokens, make_prediction
from raysearch.notebook.tensor_swap import swap_tensors
from raysearch.notebook.views import Swap

if TYPE_CHECKING:
    from torch import Tensor

_HERE = "here"


class TensorModel:
    """A network on tensors to look into: any torch module that takes a batch of tensors and puts
    out class logits.

    Raises: ModelError for a language model, which `rs.Model` takes.
    """

    def __init__(self, module: Any) -> None:
        self.given = GivenModel.of(module)

    @classmethod
    def load(cls, path: str, dtype: str = "float32", device: str = "cpu") -> "TensorModel":
        """Returns the module that a function makes: "my_net.py:network" or
        "package.module:network". Raises: JobError, ModelError."""
        place, colon, name = str(path).rpartition(":")
        if not colon:
            raise ModelError(
                f"{path}: names no function; give my_net.py:network, a function that returns a "
                f"torch.nn.Module"
            )
        if place.endswith(".py"):
            place = str(Path(place).expanduser().resolve())
        return cls(
            load_module(ModelSource(f"{place}:{name}", dtype=dtype, is_factory=True), device).module
        )

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.given.module.parameters())
        return f"{self.given.name}: a network on tensors, {count} weights, {self.given.dtype}"

    def predict(self, tensor: Any, top: int = 5) -> NextTokens:
        """Returns the `top` classes (at most all) that the network finds most likely for `tensor`,
        which has no row dimension.

        `tensor`: of torch or numpy, or nested lists of numbers. Raises: PairsError for what is no
        tensor; ModelError for one that the network does not take.
        """
        stimulus = self._stimulus(tensor, "predict")
        shown = f"tensor of shape {list(stimulus.shape)}"
        with self.given.borrowed():
            logits = self._plain(stimulus, "the input")
        return make_prediction(
            shown, logits, min(top, len(logits)) if isinstance(top, int) else top, str
        )

    def swap(
        self,
        base: Any,
        source: Any,
        layer: int | SavedIntervention | None = None,
        position: Positions | None = None,
        component: str = "residual",
        head: int | None = None,
        source_position: Positions | None = None,
    ) -> Swap:
        """Runs `base` with what `source` has at `component` of `layer` (None: a module that is in
        no layer) at `position`; or with a saved intervention.

        Args:
            base, source: tensors without a row dimension, as `predict` takes them. An ablation
                takes nothing from `source`, whose answer is only compared with.
            position: the index of a token of the patched activation (None: the last); of a saved
                intervention a mapping from its positions, but for "last". What has one token needs
                none.
            source_position: where to take it from, if it is not the same token.

        Raises: PairsError for what is no tensor; PositionError, ModelError for a token, layer,
        component or head not there; StoreError, JobError for a saved intervention whose tensors do
        not fit it, or this network.
        """
        ours, theirs = self._stimulus(base, "base"), self._stimulus(source, "source")
        with self.given.borrowed():
            for name, one in (("the base", ours), ("the source", theirs)):
                self._plain(one, name)
            network = TensorNetwork(self.given.module, ours)
            if isinstance(layer, SavedIntervention):
                if component != "residual" or head is not None:
                    raise JobError(
                        f"the saved intervention {layer.intervention.id} names its sites; leave "
                        f"component and head out"
                    )
                saved = layer
            else:
                saved = SavedIntervention(_interchange(layer, component, head, position))
            made = prepare(saved, network.device)
            return swap_tensors(network, made, ours, theirs, position, source_position)

    def _stimulus(self, given: Any, what: str) -> Stimulus:
        if isinstance(given, str):
            raise PairsError(f"{what}: got the text {given!r:.60}; {self.given.name} takes tensors")
        return Stimulus.of(given)

    def _plain(self, stimulus: Stimulus, what: str) -> "Tensor":
        """Returns the logits, of shape (class). Raises: ModelError where it does not run."""
        try:
            return TensorNetwork(self.given.module, stimulus).plain(stimulus)
        except (Exception, SystemExit) as e:  # the call is all the user's module
            raise not_run_error(self.given.name, stimulus, what, e) from e


def _interchange(
    layer: int | None, component: str, head: int | None, position: Positions | None
) -> Intervention:
    """Returns the interchange of a whole activation. Raises: JobError for a component that is
    none."""
    try:
        name = component_name(component)
    except ValueError as e:
        raise JobError(f"component: {e}") from e
    at = LAST if position is None else _HERE
    return Intervention((Unit(Site(layer, name, at, head)),))
