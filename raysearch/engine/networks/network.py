"""Networks as the rest of the engine uses them: blocks that run in order, inputs in, logits at the
answer out.

An input is either token ids (`LanguageModel`) or a tensor (`tensor_network.TensorNetwork`). One
forward pass takes inputs of one *batch key*: inputs that do not change each other's results when
they share a batch. A `LoadedNetwork` opens the network and the encoder that turns pairs into its
inputs.

Invariants: the batch key of an input depends on that input alone. Inputs of tokens share a batch if
they have one length: nothing is padded or masked, so that a batch runs as one input by itself does.
"""

import inspect
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from raysearch.causal import Pair
from raysearch.core.events import Ids
from raysearch.core.events import (
    ModelInput as ModelInput,
)  # re-exported: the input of a network
from raysearch.engine.networks.block_stubs import stub_blocks, without_product
from raysearch.engine.networks.blocks import layers_of
from raysearch.engine.networks.encoder import Encoder
from raysearch.engine.networks.hooks import HookSide
from raysearch.engine.networks.length_boundaries import Stretch, config_values, named_lengths
from raysearch.engine.networks.to_device import on_device

EXAMPLE = 3
"""Tokens in the example input. Several, so that a module that does not produce one vector for each
token is noticed."""

Item = TypeVar("Item")


def tokens_of(given: ModelInput) -> int:
    """Returns the number of tokens of an input; a tensor counts as one."""
    return len(given) if isinstance(given, tuple) else 1


class Network(Protocol):
    """A model with blocks."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def name(self) -> str:
        """The name of the model in error messages."""
        ...

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks in the order in which they run."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def width(self) -> int:
        """The width of the residual stream; 0 where blocks may differ."""
        ...

    @property
    def heads(self) -> int:
        """The number of attention heads of a layer; 0 without attention."""
        ...

    @property
    def flat(self) -> bool:
        """True if an activation may be (row, width): the network has no tokens, or takes one token
        at a time."""
        ...

    def batch_key(self, given: ModelInput) -> Hashable:
        """Returns a key that is equal for inputs that may share a batch."""
        ...

    def firings(self, module: nn.Module, given: ModelInput) -> int:
        """Returns how many times `module` runs in one forward pass on a batch with the batch key of
        `given`."""
        ...

    def tokens_at(self, module: nn.Module, side: HookSide, given: ModelInput) -> int | None:
        """Returns the number of tokens of that activation on `given`; None if it has one for each
        input token."""
        ...

    def check_patchable(self, component: str, module: nn.Module, side: HookSide) -> None:
        """Raises: ModelError for a module that never runs, or whose activation has a shape that
        cannot be patched."""
        ...

    def without_layers(self, component: str) -> str:
        """Returns an error text: why a network without blocks lacks the layer component
        `component`, and what can be named instead."""
        ...

    def paths(self) -> Sequence[str]:
        """Returns module paths that a job may name as components, for error messages."""
        ...

    def example(self) -> ModelInput:
        """Returns an input that shows the shapes of activations."""
        ...

    def plain(self, given: ModelInput, whole: bool = False) -> Float[Tensor, "answer"]:
        """Computes the logits (float32) at the answer in one forward pass at batch size one,
        without padding or mask.

        `whole`: run the modules after the blocks on every token, for callers that hook them.
        """
        ...

    def batch(self, givens: Sequence[ModelInput]) -> Float[Tensor, "row answer"]:
        """Computes the logits (float32) at the answer of every row in one forward pass. All inputs
        have one batch key."""
        ...


class LoadedNetwork(Protocol):
    """A model in memory, either of texts or of tensors."""

    @property
    def digest(self) -> str:
        """Digest of the weights and of everything else that determines the outputs."""
        ...

    @property
    def dtype(self) -> str: ...

    @property
    def commit(self) -> str | None:
        """Commit hash of the Hugging Face repository; None for other sources."""
        ...

    @property
    def unused(self) -> tuple[str, ...]:
        """One line for each file that lies with the model and is not loaded, to be reported to the
        user."""
        ...

    def open(self, pairs: Sequence[Pair]) -> tuple[Network, Encoder]:
        """Returns the network and the encoder of pairs such as these. Raises: ModelError,
        PairsError."""
        ...

    def reinitialised(self, seed: int = 0) -> "LoadedNetwork":
        """Returns the same architecture with new random weights, as before training: the control
        `random_model`."""
        ...


class LanguageModel:
    """A decoder-only language model of transformers. The answer is the token after the last one."""

    flat = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.layers = layers_of(model)
        config = model.config.get_text_config()
        self.width = int(config.hidden_size)
        self.heads = int(getattr(config, "num_attention_heads", None) or 0)
        values = config_values(config)
        self.lengths = named_lengths(values)
        self._stretch = Stretch(model, values)

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
        """True if the model takes a cache and an argument that says which logits to compute. Suffix
        replay needs both."""
        return all(
            self._takes(name)
            for name in ("past_key_values", "use_cache", "logits_to_keep", "position_ids")
        )

    def batch_key(self, given: ModelInput) -> Hashable:
        return len(_ids(given))

    def share_activations(self, one: ModelInput, other: ModelInput) -> bool:
        """Says whether a common prefix of the two inputs has the same activations in both."""
        return self._stretch.regime(len(_ids(one))) == self._stretch.regime(len(_ids(other)))

    def run(self, **arguments: object) -> Float[Tensor, "row token vocab"]:
        """Calls the model with its own arguments and returns its logits, whatever ran before."""
        self.forget()
        with self._head_in_one_product():
            logits: Tensor = self.model(**arguments).logits
        return logits

    @contextmanager
    def _head_in_one_product(self) -> Iterator[None]:
        """Gives the head its input in one piece of memory.

        The last token of each row is a view with gaps. On a CPU torch multiplies each row of such a
        view by itself: 107 ms in place of 20 for 16 rows and the head of SmolLM2-135M in float32.
        """
        if self.head is None:
            yield
            return
        handle = self.head.register_forward_pre_hook(
            lambda _, given: (given[0].contiguous(), *given[1:]) if given else None
        )
        try:
            yield
        finally:
            handle.remove()

    @property
    def head(self) -> nn.Linear | None:
        """The layer that computes the logits, where that is one product."""
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        return head if isinstance(head, nn.Linear) else None

    def forget(self) -> None:
        """Resets the state that a run leaves in the model, so that outputs depend on the current
        input alone."""
        self._stretch.forget()

    def firings(self, module: nn.Module, given: ModelInput) -> int:
        return 1

    def tokens_at(self, module: nn.Module, side: HookSide, given: ModelInput) -> int | None:
        return None

    def check_patchable(self, component: str, module: nn.Module, side: HookSide) -> None:
        """Does nothing: a language model is checked when its modules are hooked."""

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
        """Returns an input of `tokens` distinct tokens, or of as many as the model takes."""
        config = self.model.config.get_text_config()
        most = getattr(config, "max_position_embeddings", None)
        return tuple(token % config.vocab_size for token in range(min(tokens, most or tokens)))

    def copies(
        self, given: ModelInput, rows: int, whole: bool = False
    ) -> Float[Tensor, "row vocab"]:
        """Runs `rows` copies of `given` in one batch; otherwise like `plain`."""
        return self._forward([given] * rows, whole=whole)

    def plain(self, given: ModelInput, whole: bool = False) -> Float[Tensor, "vocab"]:
        return self.copies(given, 1, whole)[0]

    def resumed(
        self, layer: int, residual: Float[Tensor, "token d_model"]
    ) -> Callable[[ModelInput], Float[Tensor, "vocab"]]:
        """Returns a function like `plain` that skips the blocks up to `layer`, for inputs whose
        `residual` after that block is known."""
        tuples = self.tuples  # needs a run, which must come before hooks are registered

        def run(given: ModelInput) -> Float[Tensor, "vocab"]:
            with stub_blocks(
                self.layers,
                lambda at, own, *_: residual[None] if at == layer else own,
                tuples,
                end=layer + 1,
            ):
                return self.plain(given)

        return run

    @contextmanager
    def ending_after(self, blocks: int) -> Iterator[None]:
        """Makes forward passes run only the first `blocks` blocks, and no head; their logits mean
        nothing."""
        stubs = stub_blocks(self.layers, lambda _layer, given, *_: given, self.tuples, first=blocks)
        with stubs, without_product(self.head):
            yield

    @cached_property
    def tuples(self) -> bool:
        """True if blocks return tuples that start with the residual, as some do in transformers <
        5."""
        found: list[bool] = []
        handle = self.layers[0].register_forward_hook(
            lambda _m, _i, out: found.append(isinstance(out, tuple))
        )
        try:
            self.plain((0,))
        finally:
            handle.remove()
        return found[0]

    def batch(
        self, givens: Sequence[ModelInput], cache: Cache | None = None
    ) -> Float[Tensor, "row vocab"]:
        """Computes logits of rows; keys and values are written to `cache`, if given."""
        assert len(set(map(self.batch_key, givens))) == 1, "rows of one batch have one length"
        return self._forward(givens, cache)

    def _forward(
        self, givens: Sequence[ModelInput], cache: Cache | None = None, whole: bool = False
    ) -> Float[Tensor, "row vocab"]:
        options: dict[str, object] = {}
        if cache is not None:
            options = {"past_key_values": cache, "use_cache": True}
        elif self._takes("use_cache"):
            options = {"use_cache": False}
        if not whole and self._takes("logits_to_keep"):
            options["logits_to_keep"] = (
                1  # the head at 12 tokens takes as long as the blocks of SmolLM2-135M
            )
        ids = on_device(torch.tensor([_ids(given) for given in givens]), self.device)
        return self.run(input_ids=ids, **options)[:, -1].float()

    def _takes(self, argument: str) -> bool:
        """Says whether the signature of `forward` has the argument. A TypeError of a trial call
        could come from any code below."""
        return argument in self._arguments

    @cached_property
    def _arguments(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.model.forward).parameters)


def batches(
    items: Sequence[Item], batch_key: Callable[[Item], Hashable], rows: int
) -> Iterator[list[Item]]:
    """Yields `items` in batches of one batch key and at most `rows` items, in their order within
    each batch."""
    by_batch_key: dict[Hashable, list[Item]] = {}
    for item in items:
        by_batch_key.setdefault(batch_key(item), []).append(item)
    for group in by_batch_key.values():
        for start in range(0, len(group), rows):
            yield group[start : start + rows]


def _ids(given: ModelInput) -> Ids:
    assert isinstance(given, tuple), "a language model is given token ids"
    return given
