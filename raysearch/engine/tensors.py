"""Networks on tensors: an MLP, a vision transformer, a recurrent network; any module that takes one tensor and puts out class logits.

    TensorNetwork(model, example)                   the blocks are looked for: the layers of a GRU or LSTM, its cells, or the module list
    TensorNetwork(model, example, blocks="net")     they are the children of that module

An activation (row, width) has no tokens: its vector is token 0. In a recurrent network the time steps are the tokens: each layer is
run as its own step (`recurrent.Step`), once for every time step, so that what is patched at one step is felt by those after it. The
"residual" is the hidden state that a step puts out, the "block_input" what the step is given. The tokens of a module that runs
several times (a cell in a loop, a block that is used again) are those of its runs, one run after the other; how often it runs is
counted in one pass for each shape of input.

Invariants: rows of one company have one shape; the model is as it was afterwards; a recurrent network's steps share its weights.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raysearch.causal import Stimulus
from raysearch.engine.hooks import Hook, Moment, owned_hooks
from raysearch.engine.recurrent import steps_of, stepwise
from raysearch.engine.sites import module_at
from raysearch.errors import ModelError
from raysearch.search.events import Given

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
"""Where the blocks are looked for, before the only list of modules that there is."""


class TensorNetwork:
    """`module` on inputs such as `example` (a tensor without a row dimension). The answer is one of its classes.

    `blocks`: the dotted path of the module whose children are the layers (a ModuleList or Sequential), or that is a GRU or LSTM, or a
    cell of one. Numbers that are not whole come in the dtype of the module's own.

    Raises: ModelError where no blocks are found, or a recurrent network is of a kind that cannot be run step by step.
    """

    flat = True
    width = 0

    def __init__(self, module: nn.Module, example: Tensor | Stimulus, blocks: str | None = None) -> None:
        self.module = module
        self._example = example if isinstance(example, Stimulus) else Stimulus.of(example)
        found = _blocks(module, blocks)
        self._recurrent = found if isinstance(found, nn.RNNBase) else None
        self._steps = steps_of(found) if isinstance(found, nn.RNNBase) else []
        self.blocks: Sequence[nn.Module] = self._steps or (found if isinstance(found, list) else list(found.children()))
        self._firings: dict[Hashable, Mapping[int, int]] = {}
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

    def company(self, given: Given) -> Hashable:
        return _stimulus(given).dtype, _stimulus(given).shape

    def pad(self, given: Given) -> int:
        return 0

    def firings(self, module: nn.Module, given: Given) -> int:
        """As counted in one pass; 1 for a module that does not run at all, so that a hook on it is an error."""
        company = self.company(given)
        if company not in self._firings:
            self._firings[company] = self._counted(given)
        return max(1, self._firings[company].get(id(module), 0))

    def tokens(self, given: Given) -> int:
        """How many the first layer has: time steps, patches; 1 where there are none."""
        seen: list[int] = []

        def look(activation: Float[Tensor, "1 token width"], _moment: Moment) -> None:
            seen.append(activation.shape[1])

        first = self.blocks[0]
        with torch.inference_mode(), owned_hooks([Hook(first, "output", look, self.firings(first, given), flat=True)]):
            self.plain(given)
        return sum(seen)

    @property
    def classes(self) -> int:
        """How many the answer is one of."""
        with torch.inference_mode():
            return len(self.plain(self._example))

    def example(self) -> Given:
        return self._example

    def plain(self, given: Given) -> Float[Tensor, "class"]:
        return self.batch([given])[0]

    def batch(self, givens: Sequence[Given]) -> Float[Tensor, "row class"]:
        inputs = torch.stack([_tensor(given) for given in givens]).to(self.device)
        if inputs.is_floating_point():
            inputs = inputs.to(self._dtype)
        with stepwise(self._recurrent, self._steps):
            out = self.module(inputs)
        logits = getattr(out, "logits", out[0] if isinstance(out, tuple) else out)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(givens):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"{self.name} puts out {got}; need class logits (row, class), alone, first of a tuple, or as .logits"
            )
        return logits.float()

    def _counted(self, given: Given) -> Mapping[int, int]:
        """By the id of a module, how often it runs."""
        counts: dict[int, int] = {}

        def count(module: nn.Module, _inputs: Any) -> None:
            counts[id(module)] = counts.get(id(module), 0) + 1

        modules = dict.fromkeys(chain(self.module.modules(), self._steps))
        handles = [module.register_forward_pre_hook(count) for module in modules]
        try:
            with torch.inference_mode():
                self.plain(given)
        finally:
            for handle in handles:
                handle.remove()
        return counts


def _blocks(module: nn.Module, path: str | None) -> nn.Module | list[nn.Module]:
    """The module whose children are the blocks, or the recurrent network, or the cells themselves."""
    if path is not None:
        found = module if path == "" else module_at(module, path)
        if isinstance(found, nn.RNNCellBase):
            return [found]
        if found is None or not (isinstance(found, nn.RNNBase) or len(list(found.children()))):
            raise ModelError(
                f"{type(module).__name__} has no blocks at {path!r}; name a list of modules, a GRU, an LSTM or a cell"
            )
        return found
    recurrent = [m for m in module.modules() if isinstance(m, nn.RNNBase)]
    if len(recurrent) == 1:
        return recurrent[0]
    for name in BLOCKS:
        found = module_at(module, name)
        if isinstance(found, nn.ModuleList | nn.Sequential) and len(found):
            return found
    cells: list[nn.Module] = [m for m in module.modules() if isinstance(m, nn.RNNCellBase)]
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m)]
    if cells and not recurrent:
        return cells
    if len(lists) == 1:
        return lists[0]
    got = (
        "several recurrent networks"
        if recurrent
        else f"{len(lists)} lists of modules"
        if lists
        else "no list of modules"
    )
    raise ModelError(
        f"{type(module).__name__} has {got}; say which are the layers (blocks: a dotted path; in a module of your own, the list "
        'called "layers")'
    )


def _stimulus(given: Given) -> Stimulus:
    assert isinstance(given, Stimulus), "a network on tensors is given a tensor"
    return given


def _tensor(given: Given) -> Tensor:
    return _read(_stimulus(given))


@lru_cache(maxsize=65536)
def _read(stimulus: Stimulus) -> Tensor:
    """Its tensor, which nobody writes to."""
    dtype = {"float32": torch.float32, "int64": torch.int64}[stimulus.dtype]
    return torch.frombuffer(bytearray(stimulus.data), dtype=dtype).view(stimulus.shape)
