"""Networks on tensors: an MLP, a vision transformer, a recurrent network; any module that takes one
tensor and returns class logits.

    TensorNetwork(model, example)                  finds them: layers of a GRU or LSTM, cells
    TensorNetwork(model, example, blocks="net")    takes the children of that module

If no blocks are found there are no layers, and components are named by the paths of their modules.

An activation (row, width) has no tokens: its vector is token 0. In a recurrent network the tokens
are time steps: each layer runs as its own step (`recurrent.Step`), once for each time step, so that
a patch at one step affects the later ones. "residual" is the hidden state that a step returns,
"block_input" the input of the step. The tokens of a module that runs several times (a cell in a
loop, a shared block) are those of its runs, one run after the other; one pass for each input shape
counts the runs. "last" is the last token of the patched activation, whose number of tokens may
differ from that of the blocks (a pooled vector has one).

Invariants: rows with one batch key have one shape; the model is left unchanged; the steps of a
recurrent network share its weights.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from raysearch.causal import Stimulus
from raysearch.core.events import ModelInput
from raysearch.engine.networks.blocks import module_at
from raysearch.engine.networks.hooks import HookSide
from raysearch.engine.networks.module_shapes import (
    ActivationShape,
    ModuleKey,
    activation_shapes_of,
    patchable,
)
from raysearch.engine.networks.recurrent import steps_of, stepwise, unsteppable
from raysearch.engine.networks.to_device import on_device
from raysearch.errors import ModelError

BLOCKS = (
    "vit.layers",
    "vit.encoder.layer",
    "encoder.layers",
    "encoder.layer",
    "blocks",
    "layers",
    "h",
    "transformer.h",
)
"""Paths of block lists, tried before the only list of modules that the network has."""
_DTYPES = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool}
"""The dtype of the numbers of an input, by its name."""


class TensorNetwork:
    """Wraps `module` for inputs like `example` (a tensor without a row dimension). The answer is
    one of its classes.

    `blocks`: the dotted path of the module whose children are the layers (a ModuleList or
    Sequential), or of a GRU, LSTM or cell. Floating inputs are converted to the module's dtype.
    `without_blocks`: why no blocks were found, if so.

    Raises: ModelError if there are no blocks at that path.
    """

    flat = True
    width = 0

    def __init__(
        self,
        module: nn.Module,
        example: Shaped[Tensor, "..."] | Stimulus,
        blocks: str | None = None,
    ) -> None:
        self.module = module
        self._example = example if isinstance(example, Stimulus) else Stimulus.of(example)
        found, self.without_blocks = _blocks(module, blocks)
        self._recurrent = found if isinstance(found, nn.RNNBase) else None
        self._steps = steps_of(found) if isinstance(found, nn.RNNBase) else []
        self.blocks: Sequence[nn.Module] = self._steps or (
            found if isinstance(found, list) else list(found.children())
        )
        self._firings: dict[Hashable, Mapping[int, int]] = {}
        self._shapes: dict[Hashable, Mapping[ModuleKey, ActivationShape]] = {}
        own = next(chain(module.parameters(), module.buffers()), torch.empty(0))
        self._device = own.device
        self._dtype = own.dtype if own.is_floating_point() else torch.float32
        config = getattr(module, "config", None)
        self.heads = int(getattr(config, "num_attention_heads", 0) or 0)

    @property
    def name(self) -> str:
        return type(self.module).__name__

    @property
    def device(self) -> torch.device:
        return self._device

    def batch_key(self, given: ModelInput) -> Hashable:
        return _stimulus(given).dtype, _stimulus(given).shape

    def firings(self, module: nn.Module, given: ModelInput) -> int:
        """Counts the runs of a module in one pass; 1 for a module that never runs, so that a hook
        on it raises an error."""
        batch_key = self.batch_key(given)
        if batch_key not in self._firings:
            self._firings[batch_key] = self._counted(given)
        return max(1, self._firings[batch_key].get(id(module), 0))

    def shapes(self, given: ModelInput) -> Mapping[ModuleKey, ActivationShape]:
        """Returns the input and output shapes of every module that runs, for the batch key of
        `given`."""
        batch_key = self.batch_key(given)
        if batch_key not in self._shapes:
            self._shapes[batch_key] = activation_shapes_of(
                self._modules, lambda rows: self.batch([given] * rows)
            )
        return self._shapes[batch_key]

    def tokens_at(self, module: nn.Module, side: HookSide, given: ModelInput) -> int | None:
        """Returns the number of tokens of that activation on `given`; None if it cannot be
        observed."""
        found = self.shapes(given).get((id(module), side))
        return None if found is None or found.wrong is not None else found.tokens

    def tokens(self, given: ModelInput) -> int:
        """Returns the number of tokens of the first layer (time steps, patches; 1 without any).
        Without layers: the most that a module returns."""
        first = self.tokens_at(self.blocks[0], "output", given) if self.blocks else None
        return self.most_tokens(given) if first is None else first

    def most_tokens(self, given: ModelInput) -> int:
        """Returns the largest number of tokens in the output of a module."""
        found = self.shapes(given)
        return (
            max((one.tokens for (_, side), one in found.items() if side == "output"), default=0)
            or 1
        )

    def check_patchable(self, component: str, module: nn.Module, side: HookSide) -> None:
        """Raises: ModelError, found by running a few rows like the example, which names modules
        that can be patched instead."""
        found = self.shapes(self._example).get((id(module), side))
        wrong = "it never runs in a forward pass" if found is None else found.wrong
        if wrong is not None:
            raise ModelError(
                f"{self.name}: {component} cannot be patched: {wrong}; {self._instead()}"
            )

    def without_layers(self, component: str) -> str:
        which = (
            f"no layers, which {component} is of"
            if "." not in component
            else f"no layers for the {{layer}} in {component}"
        )
        return f"{self.name} has {which}: {self.without_blocks}; {self._instead()}"

    def paths(self) -> Sequence[str]:
        return patchable(self.module, self.shapes(self._example))

    def _instead(self) -> str:
        named = self.paths()
        if not named:
            return (
                "none of its modules puts out what can be patched: give it one that puts out "
                "(row, width) or (row, token, width)"
            )
        return f"name a module by its path: {', '.join(named[:12])}{', ...' * (len(named) > 12)}"

    @property
    def classes(self) -> int:
        """The number of classes."""
        with torch.inference_mode():
            return len(self.plain(self._example))

    def example(self) -> ModelInput:
        return self._example

    def plain(self, given: ModelInput, whole: bool = False) -> Float[Tensor, "class"]:
        return self.batch([given])[0]

    def batch(self, givens: Sequence[ModelInput]) -> Float[Tensor, "row class"]:
        return self.logits(self.stack(givens))

    def stack(self, givens: Sequence[ModelInput]) -> Shaped[Tensor, "row ..."]:
        """Returns inputs of one batch key as one tensor, for `logits`."""
        first = _stimulus(givens[0])
        given = [of for of in givens if isinstance(of, Stimulus)]
        assert {of.shape for of in given} == {first.shape}, "inputs of one batch key"
        data = bytearray().join([of.data for of in given])
        inputs = torch.frombuffer(data, dtype=_DTYPES[first.dtype])
        inputs = on_device(inputs.view(len(givens), *first.shape), self.device)
        return inputs.to(self._dtype) if inputs.is_floating_point() else inputs

    def logits(self, inputs: Shaped[Tensor, "row ..."]) -> Float[Tensor, "row class"]:
        """Computes the logits (float32) of every row of `stack`."""
        with stepwise(self._recurrent, self._steps):
            out = self.module(inputs)
        logits, rows = _logits(out), len(inputs)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != rows:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"{self.name} puts out {got} on {rows} row{'s' * (rows > 1)}; need "
                f"class logits (row, class), alone, first "
                "of a tuple or list, or as logits of a dict or object"
            )
        return logits.float()

    @property
    def _modules(self) -> Sequence[nn.Module]:
        """All modules, and the steps that replace a recurrent network."""
        return list(dict.fromkeys(chain(self.module.modules(), self._steps)))

    def _counted(self, given: ModelInput) -> Mapping[int, int]:
        """Returns the number of runs by the id of a module."""
        counts: dict[int, int] = {}

        def count(module: nn.Module, _inputs: Any) -> None:
            counts[id(module)] = counts.get(id(module), 0) + 1

        handles = [module.register_forward_pre_hook(count) for module in self._modules]
        try:
            with torch.inference_mode():
                self.plain(given)
        finally:
            for handle in handles:
                handle.remove()
        return counts


def _logits(out: Any) -> Any:
    """Returns the part of a network's output that holds the logits."""
    if isinstance(out, Mapping):
        return out.get("logits", out)
    return getattr(out, "logits", out[0] if isinstance(out, tuple | list) and out else out)


def _blocks(module: nn.Module, path: str | None) -> tuple[nn.Module | list[nn.Module], str]:
    """Returns the module whose children are the blocks, the recurrent network, or the list of
    blocks; and, without blocks, the reason."""
    if path is not None:
        found = module if path == "" else module_at(module, path)
        if isinstance(found, nn.RNNCellBase):
            return [found], ""
        if found is None or not (isinstance(found, nn.RNNBase) or len(list(found.children()))):
            raise ModelError(
                f"{type(module).__name__} has no blocks at {path!r}; name a list of modules, a "
                f"GRU, an LSTM or a cell"
            )
        return found, ""
    recurrent = [m for m in module.modules() if isinstance(m, nn.RNNBase)]
    if len(recurrent) == 1 and not (reason := unsteppable(recurrent[0])):
        return recurrent[0], ""
    for name in BLOCKS:
        found = module_at(module, name)
        if isinstance(found, nn.ModuleList | nn.Sequential) and len(found):
            return found, ""
    cells: list[nn.Module] = [m for m in module.modules() if isinstance(m, nn.RNNCellBase)]
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m)]
    if cells and not recurrent:
        return cells, ""
    if len(lists) == 1 and not recurrent:
        return lists[0], ""
    if len(recurrent) == 1:
        return [], reason
    if recurrent:
        return [], f"it has {len(recurrent)} recurrent networks, and one alone is run step by step"
    return (
        [],
        f'it has {len(lists)} lists of modules, and none is called "layers"'
        if lists
        else "it has no list of modules",
    )


def _stimulus(given: ModelInput) -> Stimulus:
    assert isinstance(given, Stimulus), "a network on tensors is given a tensor"
    return given
