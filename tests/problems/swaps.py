"""Interchange by plain torch hooks on the small models of jobs/models: the tests' own, nothing of
the engine.

Invariants: two plain forward passes; the residual is what a block gives out; all texts of a problem
have as many tokens.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from raysearch import Input, Pair

MODELS = Path(__file__).resolve().parents[2] / "jobs" / "models"


class Small:
    """A model of jobs/models, loaded from disk, with its tokenizer."""

    def __init__(self, name: str) -> None:
        self.folder = MODELS / name
        self.model: PreTrainedModel = (
            AutoModelForCausalLM.from_pretrained(self.folder).eval().requires_grad_(False)
        )
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.folder)

    def ids(self, inputs: Sequence[Input]) -> Tensor:
        """[text, token]."""
        return torch.tensor(self.tokenizer([i.text for i in inputs])["input_ids"])

    def answers(self, logits: Tensor) -> list[str]:
        """The most likely next token of each text."""
        return self.tokenizer.batch_decode(logits.argmax(1)[:, None])

    def plain(self, inputs: Sequence[Input]) -> Tensor:
        """The logits at the last token, [text, token of the vocabulary]."""
        return self.model(self.ids(inputs), use_cache=False).logits[:, -1]

    def swapped(
        self, pairs: Sequence[Pair], layer: int, token: int, directions: Tensor | None = None
    ) -> Tensor:
        """The logits where the residual after `layer` at `token` is the source's, in `directions`
        ([width, k]) or whole."""
        seen: list[Tensor] = []

        def take(_module: nn.Module, _args: object, out: Tensor) -> None:
            seen.append(out[:, token].clone())

        def put(_module: nn.Module, _args: object, out: Tensor) -> Tensor:
            change = seen[0] - out[:, token]
            out = out.clone()
            out[:, token] += change if directions is None else change @ directions @ directions.T
            return out

        block = _blocks(self.model)[layer]
        for hook, inputs in (
            (take, [p.sources["source"] for p in pairs]),
            (put, [p.base for p in pairs]),
        ):
            handle = block.register_forward_hook(hook)
            try:
                logits = self.plain(inputs)
            finally:
                handle.remove()
        return logits

    def iia(
        self,
        pairs: Sequence[Pair],
        variable: str,
        layer: int,
        token: int,
        directions: Tensor | None = None,
    ) -> float:
        """The share of the change pairs of `variable` whose answer becomes its counterfactual."""
        answers = self.answers(self.swapped(pairs, layer, token, directions))
        hits = [
            answer == pair.counterfactual[variable]
            for answer, pair in zip(answers, pairs, strict=True)
            if pair.counterfactual[variable] != pair.answers["base"]
        ]
        return sum(hits) / len(hits)


def _blocks(model: PreTrainedModel) -> nn.ModuleList:
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers
