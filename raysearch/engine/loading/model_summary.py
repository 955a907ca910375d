"""A model as far as it is known without its weights. This module does not import torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raysearch.core.events import Encoded
from raysearch.core.model_facts import ComponentFacts
from raysearch.engine.networks.encoder import Encoder
from raysearch.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class ModelShapes:
    """Plain facts about a model before it runs. `path`: the executor that is expected; each replica
    tests it.

    `weight_bytes`: in the requested dtype; `copied_bytes`: of float32 copies of weights that a
    replica on a CPU like this one holds; `item_bytes`: of one number in that dtype. `keys`: numbers
    in the keys and values of a token, over all layers (0: not cached); `widest`: the widest vector
    of a block; `logits`: number of logits at an answer. `quantised`: by which method, if it is.
    """

    components: tuple[ComponentFacts, ...]
    layers: int
    width: int
    heads: int
    path: str
    weight_bytes: int
    item_bytes: int
    keys: int
    widest: int
    logits: int
    copied_bytes: int = 0
    quantised: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSummary(ModelShapes):
    """The shapes of a model, the encoder of pairs (`encode`), what reads a token as text (`read`;
    None for a model on tensors), and files in its folder that are not loaded (`unused`)."""

    encode: Encoder
    read: Callable[[int], str] | None = None
    unused: tuple[str, ...] = ()


def check_lengths(longest: int | None, encoded: Sequence[Encoded]) -> None:
    """Raises: ModelError for a pair of more tokens than the model takes (`longest`; None: any)."""
    # the last token of an answer is no input
    answer_tokens = max((e.longest for e in encoded), default=1) - 1
    for e in encoded:
        if longest is not None and e.tokens + answer_tokens > longest:
            answer = f" and {answer_tokens} of an answer" if answer_tokens else ""
            raise ModelError(
                f"pair {e.index}: has {e.tokens} tokens{answer}; the model takes at most "
                f"{longest}; shorten its texts"
            )
