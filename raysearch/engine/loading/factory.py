"""Networks made by a user's function, "package.module:factory" or "/path/file.py:factory": any
torch.nn.Module on tensors.

Invariants: the factory is called once in each replica and uses torch's random state as usual, which
is restored afterwards; the module is in evaluation mode, without gradients, in the requested dtype;
its digest covers its weights and the file of the factory, if any, and does not depend on dtype and
device.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from raysearch.causal import Pair
from raysearch.core.model_source import ModelSource
from raysearch.engine.encoding.encode_tensors import encode_tensors, not_run_error, stimulus_of
from raysearch.engine.loading.factory_kind import NETWORK
from raysearch.engine.loading.loaded_model import DTYPES, widest_of
from raysearch.engine.loading.model_summary import ModelSummary
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.encoder import Encoder
from raysearch.engine.networks.half_precision import copied_bytes, speed_up
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.errors import ModelError, PairsError, RaysearchError
from raysearch.user_code import find
from raysearch.visible_text import one_line

KEY = "model.path"


def load_module(source: ModelSource, device: str = "cpu") -> "LoadedModule":
    """Calls the factory of `source` and moves the module to `device`. Raises: JobError, ModelError
    in one line."""
    place, _, name = source.path.rpartition(":")
    with torch.random.fork_rng(devices=[]):
        module = _make(place, name)
    digest = module_digest(module, Path(place) if place.endswith(".py") else None)
    try:
        module = module.to(device=device, dtype=DTYPES[source.dtype])
    except (RuntimeError, AssertionError) as e:  # torch without CUDA asserts
        raise ModelError(
            f"{source.path}: cannot be put on device {device!r} ({one_line(e)}); try cpu"
        ) from e
    module.eval().requires_grad_(False)
    speed_up(module)
    return LoadedModule(module, digest, source.dtype)


@dataclass(frozen=True)
class LoadedModule:
    """A module ready to run, its digest and the name of its dtype."""

    module: nn.Module
    digest: str
    dtype: str = "float32"
    commit: None = None
    unused: tuple[()] = ()

    def open(self, pairs: Sequence[Pair]) -> tuple[TensorNetwork, Encoder]:
        """Returns the network, its shapes observed on the first base. Raises: ModelError if it does
        not run on that; PairsError."""
        if not pairs:
            raise PairsError(
                f"{type(self.module).__name__}: there are no pairs; the first base shows what it "
                f"is given"
            )
        example = stimulus_of(pairs[0].base, what := f"pair {pairs[0].index}: the base")
        network = TensorNetwork(self.module, example)
        try:
            network.firings(self.module, example)
            first, second = network.plain(example), network.plain(example)
        except (Exception, SystemExit) as e:  # any error of the user's module
            raise not_run_error(network.name, example, what, e) from e
        if not torch.allclose(first, second, atol=1e-3, equal_nan=True):
            raise ModelError(
                f"{network.name} puts out other logits each time it is run on {what}: something in "
                f"it is drawn at random; leave that out "
                "outside of training (dropout: nn.Dropout, or F.dropout(x, training=self.training))"
            )
        return network, partial(encode_tensors, network)

    def summary(
        self, pairs: Sequence[Pair], components: Sequence[str] = ("residual",)
    ) -> ModelSummary:
        """Describes the module by running it once on a pair. Raises: ModelError, PairsError."""
        network, encode = self.open(pairs)
        hook_points = Components(network)
        return ModelSummary(
            components=tuple(hook_points.facts(component) for component in components),
            layers=len(network.blocks),
            width=network.width,
            heads=network.heads,
            path="batched",
            weight_bytes=sum(p.numel() * p.itemsize for p in self.module.parameters()),
            item_bytes=DTYPES[self.dtype].itemsize,
            keys=0,
            widest=widest_of(network.blocks),
            logits=len(network.plain(network.example())),
            encode=encode,
            copied_bytes=copied_bytes(self.module, DTYPES[self.dtype]),
        )

    def reinitialised(self, seed: int = 0) -> "LoadedModule":
        """Returns a copy of the module after `reset_parameters` of each of its parts.

        Raises: ModelError for a part with parameters that lacks this method.
        """
        module = copy.deepcopy(self.module)
        parts = [m for m in module.modules() if next(m.parameters(recurse=False), None) is not None]
        fixed = next((m for m in parts if not callable(getattr(m, "reset_parameters", None))), None)
        if fixed is not None:
            raise ModelError(
                f"{type(fixed).__name__} cannot be given random weights: it has no "
                "reset_parameters(); add it, or leave out the control random_model"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for part in parts:
                part.reset_parameters()  # type: ignore[operator]
        module.requires_grad_(False)
        return replace(self, module=module, digest=f"{self.digest} with random weights {seed}")


def module_digest(module: nn.Module, file: Path | None = None) -> str:
    """Returns the SHA-256 (64 hex digits) of names, shapes, dtypes and bytes of all parameters and
    buffers, and of the code in `file`."""
    whole = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            raise ModelError(
                f"{KEY}: {name} of {type(module).__name__} is {type(tensor).__name__}; only "
                f"tensors are kept"
            )
        content = tensor.detach().cpu().contiguous()
        whole.update(f"{name}\0{content.dtype}\0{tuple(content.shape)}\0".encode())
        whole.update(content.flatten().view(torch.uint8).numpy().tobytes())
    if file is not None:
        whole.update(b"\0file\0" + file.read_bytes())
    return whole.hexdigest()


def _make(place: str, name: str) -> nn.Module:
    """Calls the factory. Raises: JobError if it does not exist, ModelError if it raises or returns
    something else."""
    shown = f"{Path(place).name if place.endswith('.py') else place}:{name}"
    factory = find(place, name, KEY, NETWORK)
    try:
        made = factory if isinstance(factory, nn.Module) else factory()
    except RaysearchError:
        raise
    except (Exception, SystemExit) as e:
        raise ModelError(
            f"{KEY}: {shown} raised {type(e).__name__}: {one_line(e)}; it is called without "
            "arguments"
        ) from e
    if not isinstance(made, nn.Module):
        raise ModelError(
            f"{KEY}: {shown} returned {type(made).__name__}; it must return a torch.nn.Module"
        )
    if isinstance(made, PreTrainedModel) and made.can_generate():
        raise ModelError(
            f"{KEY}: {shown} returned the language model {type(made).__name__}; give its folder or "
            "hub id instead (a factory is for networks on tensors)"
        )
    return made
