"""Networks as the engine sees them: blocks in the order in which they run, rows in, logits at the
answer out.

A network takes rows of one *company* at a time: inputs that can travel in one batch without
changing each other. What it is given is either token ids (`LanguageModel`) or a tensor
(`tensors.TensorNetwork`); a `LoadedNetwork` says which, and how pairs become it.

Invariants: the company of an input, and where its tokens stand in a batch, depend on the input
alone; padding stands left, is masked, and does not move the position ids.
"""

import inspect
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from typing import Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from raysearch.causal import Pair
from raysearch.core.events import Encoded, Ids
from raysearch.core.events import (
    ModelInput as ModelInput,
)  # here too: it is what a network is given
from raysearch.engine.networks.block_stubs import stubbed
from raysearch.engine.networks.blocks import layers_of
from raysearch.engine.networks.hooks import HookSide
from raysearch.engine.networks.length_boundaries import Stretch, named_lengths, told_by

WIDTH_STEP = 4
"""Rows of tokens are padded to a multiple of this: few shapes, at most three tokens of padding."""

EXAMPLE = 3
"""Tokens of the example: several, so that a module that sees other than one vector for each is seen
to."""

Item = TypeVar("Item")


def tokens_of(given: ModelInput) -> int:
    """How many tokens there are in it; a tensor counts as one."""
    return len(given) if isinstance(given, tuple) else 1


class Network(Protocol):
    """A model with blocks."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def name(self) -> str:
        """How it is called in an error."""
        ...

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """In the order in which they run."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def width(self) -> int:
        """Of the residual; 0 where blocks may differ."""
        ...

    @property
    def heads(self) -> int:
        """Attention heads of a layer, 0 where there is no attention."""
        ...

    @property
    def flat(self) -> bool:
        """Whether an activation may be (row, width): the network has no tokens, or takes them one
        at a time."""
        ...

    def company(self, given: ModelInput) -> Hashable:
        """Equal for inputs that can travel in one batch."""
        ...

    def pad(self, given: ModelInput) -> int:
        """Where the first token of `given` stands in a batch."""
        ...

    def firings(self, module: nn.Module, given: ModelInput) -> int:
        """How often `module` runs in a forward pass on a batch of the company of `given`."""
        ...

    def tokens_at(self, module: nn.Module, side: HookSide, given: ModelInput) -> int | None:
        """How many tokens the activation there has on `given`; None where it has those of the
        input."""
        ...

    def check_patchable(self, component: str, module: nn.Module, side: HookSide) -> None:
        """Raises: ModelError, in one line, for a module that never runs, or whose activation is of
        no shape that can be patched."""
        ...

    def without_layers(self, component: str) -> str:
        """Why there is no `component`, which is of a layer, in a network without blocks, and what
        can be named instead."""
        ...

    def paths(self) -> Sequence[str]:
        """Components that are modules' paths, such as a job may name, for errors."""
        ...

    def example(self) -> ModelInput:
        """Some input, to look at shapes."""
        ...

    def plain(self, given: ModelInput, whole: bool = False) -> Float[Tensor, "answer"]:
        """The logits (float32) at the answer: one plain forward pass, nothing padded, nothing
        masked.

        `whole`: what comes after the blocks is run at every token too, for those who hook it.
        """
        ...

    def batch(self, givens: Sequence[ModelInput]) -> Float[Tensor, "row answer"]:
        """The logits (float32) at the answer of every row, in one forward pass. All are of one
        company."""
        ...


class LoadedNetwork(Protocol):
    """A model that was read, of whatever world: texts or tensors."""

    @property
    def digest(self) -> str:
        """Of the weights and of what else says what is computed."""
        ...

    @property
    def dtype(self) -> str: ...

    @property
    def commit(self) -> str | None:
        """Of the hub's repository that it was read from; None where it is from nowhere such."""
        ...

    @property
    def unused(self) -> tuple[str, ...]:
        """What lies with the model and is left out of it, a line for each, to be said."""
        ...

    def open(self, pairs: Sequence[Pair]) -> tuple[Network, "Encoder"]:
        """The network, and how pairs such as these become what it is given. Raises: ModelError,
        PairsError."""
        ...

    def reinitialised(self, seed: int = 0) -> "LoadedNetwork":
        """The same architecture with new random weights, as training would begin with them: a
        control."""
        ...


class Encoder(Protocol):
    """Pairs as the network sees them, with `positions` (and "last") and the counterfactuals of
    `variables`."""

    def __call__(
        self, pairs: Sequence[Pair], positions: Sequence[str], variables: Sequence[str]
    ) -> tuple[Encoded, ...]: ...


class LanguageModel:
    """A decoder-only language model of transformers; the answer is the token after the last."""

    flat = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.layers = layers_of(model)
        config = model.config.get_text_config()
        self.width = int(config.hidden_size)
        self.heads = int(getattr(config, "num_attention_heads", None) or 0)
        told = told_by(config)
        self.lengths = named_lengths(told)
        self._stretch = Stretch(model, told)

    @property
    def module(self) -> nn.Module:
        return self.model

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def name(self) -> str:
        return f"{type(self.model).__name__} ({self.model.config.model_type})"

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def can_replay(self) -> bool:
        """Whether the model takes a cache and says which logits to compute: without these there is
        nothing to replay on."""
        return all(
            self._takes(name)
            for name in ("past_key_values", "use_cache", "logits_to_keep", "position_ids")
        )

    def company(self, given: ModelInput) -> Hashable:
        length = len(_ids(given))
        return width_of(length), self._stretch.regime(length)

    def alike(self, one: ModelInput, other: ModelInput) -> bool:
        """Whether what they begin with alike has the same activations in both."""
        return self._stretch.regime(len(_ids(one))) == self._stretch.regime(len(_ids(other)))

    def run(self, **arguments: object) -> Tensor:
        """The model's own logits for its own arguments, whatever it ran before."""
        self.forget()
        logits: Tensor = self.model(**arguments).logits
        return logits

    def forget(self) -> None:
        """Takes back what a run has left in the model: its outputs depend on what it is given, not
        on what it was given before."""
        self._stretch.forget()

    def pad(self, given: ModelInput) -> int:
        length = len(_ids(given))
        return width_of(length) - length

    def firings(self, module: nn.Module, given: ModelInput) -> int:
        return 1

    def tokens_at(self, module: nn.Module, side: HookSide, given: ModelInput) -> int | None:
        return None

    def check_patchable(self, component: str, module: nn.Module, side: HookSide) -> None:
        """Nothing is known before it is hooked."""

    def without_layers(self, component: str) -> str:
        raise AssertionError("a language model has blocks")

    def paths(self) -> Sequence[str]:
        block = self.layers[-1]
        last = f".{len(self.layers) - 1}"
        path = next(
            name for name, module in self.model.named_modules() if module is block
        ).removesuffix(last)
        return [f"{path}.{{layer}}.{name}" for name, _ in block.named_modules() if name]

    def example(self) -> ModelInput:
        return self.some(EXAMPLE)

    def some(self, tokens: int) -> Ids:
        """An input of so many tokens, or as many as it takes, as different as they can be."""
        config = self.model.config.get_text_config()
        most = getattr(config, "max_position_embeddings", None)
        return tuple(token % config.vocab_size for token in range(min(tokens, most or tokens)))

    def copies(
        self, given: ModelInput, rows: int, whole: bool = False
    ) -> Float[Tensor, "row vocab"]:
        """As `plain`, on `rows` copies of `given` at once."""
        options: dict[str, object] = {"use_cache": False} if self._takes("use_cache") else {}
        if not whole and self._takes("logits_to_keep"):
            options["logits_to_keep"] = (
                1  # the head at all of 12 tokens takes as long as the blocks of SmolLM2-135M
            )
        ids = torch.tensor([_ids(given)] * rows, device=self.device)
        return self.run(input_ids=ids, **options)[:, -1].float()

    def plain(self, given: ModelInput, whole: bool = False) -> Float[Tensor, "vocab"]:
        return self.copies(given, 1, whole)[0]

    def resumed(
        self, layer: int, residual: Float[Tensor, "token d_model"]
    ) -> Callable[[ModelInput], Float[Tensor, "vocab"]]:
        """As `plain`, of an input whose `residual` after block `layer` is known: the blocks up to
        there are not run."""
        tuples = self.tuples  # found out by a run, which no hook of the other should see

        def run(given: ModelInput) -> Float[Tensor, "vocab"]:
            with stubbed(
                self.layers,
                lambda at, own, *_: residual[None] if at == layer else own,
                tuples,
                layer + 1,
            ):
                return self.plain(given)

        return run

    @cached_property
    def tuples(self) -> bool:
        """Whether the blocks return tuples that begin with their residual, as some do in
        transformers < 5."""
        said: list[bool] = []
        handle = self.layers[0].register_forward_hook(
            lambda _m, _i, out: said.append(isinstance(out, tuple))
        )
        try:
            self.plain((0,))
        finally:
            handle.remove()
        return said[0]

    def batch(
        self, givens: Sequence[ModelInput], cache: Cache | None = None
    ) -> Float[Tensor, "row vocab"]:
        """Keys and values are left in `cache`, if there is one."""
        rows = [_ids(given) for given in givens]
        width = width_of(len(rows[0]))
        assert len({self.company(row) for row in rows}) == 1, "rows of one batch are of one company"
        pads = [width - len(row) for row in rows]
        ids = [[0] * pad + list(row) for pad, row in zip(pads, rows, strict=True)]
        mask = [[0] * pad + [1] * len(row) for pad, row in zip(pads, rows, strict=True)]
        at = [[0] * pad + list(range(len(row))) for pad, row in zip(pads, rows, strict=True)]
        options: dict[str, object] = {"attention_mask": torch.tensor(mask, device=self.device)}
        if self._takes("position_ids"):
            options["position_ids"] = torch.tensor(at, device=self.device)
        if cache is not None:
            options |= {"past_key_values": cache, "use_cache": True}
        elif self._takes("use_cache"):
            options["use_cache"] = False
        if self._takes("logits_to_keep"):
            options["logits_to_keep"] = 1
        return self.run(input_ids=torch.tensor(ids, device=self.device), **options)[:, -1].float()

    def _takes(self, argument: str) -> bool:
        """By the signature of its forward; a TypeError may come from anywhere below."""
        return argument in self._arguments

    @cached_property
    def _arguments(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.model.forward).parameters)


def width_of(length: int) -> int:
    """The padded width of a row of `length` tokens."""
    return -(-length // WIDTH_STEP) * WIDTH_STEP


def batches(
    items: Sequence[Item], company: Callable[[Item], Hashable], rows: int
) -> Iterator[list[Item]]:
    """`items` in batches of one company and at most `rows`, in their order within each."""
    by_company: dict[Hashable, list[Item]] = {}
    for item in items:
        by_company.setdefault(company(item), []).append(item)
    for group in by_company.values():
        for start in range(0, len(group), rows):
            yield group[start : start + rows]


def _ids(given: ModelInput) -> Ids:
    assert isinstance(given, tuple), "a language model is given token ids"
    return given
