"""Looks into one network on tensors: the classes that it finds most likely.

    net = rs.TensorModel(module)  # or rs.TensorModel.load("my_net.py:network")
    net.predict(torch.rand(8), top=3)
    rs.run(problem=problem, model=net, space={"layers": "all", "positions": ["last"]})

Invariants: the module stays as it is.
"""

from pathlib import Path
from typing import Any

from raysearch.causal import Stimulus
from raysearch.core.model_source import ModelSource
from raysearch.engine.encoding.encode_tensors import not_run_error
from raysearch.engine.loading.factory import load_module
from raysearch.engine.loading.given_model import GivenModel
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.errors import ModelError, PairsError
from raysearch.notebook.prediction import NextTokens, make_prediction


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
        if isinstance(tensor, str):
            raise PairsError(
                f"predict: got the text {tensor!r:.60}; {self.given.name} takes tensors"
            )
        stimulus = Stimulus.of(tensor)
        shown = f"tensor of shape {list(stimulus.shape)}"
        with self.given.borrowed():
            try:
                logits = TensorNetwork(self.given.module, stimulus).plain(stimulus)
            except (Exception, SystemExit) as e:  # the call is all the user's module
                raise not_run_error(self.given.name, stimulus, "the input", e) from e
        return make_prediction(
            shown, logits, min(top, len(logits)) if isinstance(top, int) else top, str
        )
