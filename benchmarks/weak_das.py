"""DAS on a language model: the group `das` of `weak_cases.py`.

Rotations of four directions of the residual, at an early, a middle and a late token of random
prompts. A step is forward, backward and Adam of one batch; captures are given. The resume trains
pyvene's own module by hand on all tokens of the blocks above the patch.
"""

import argparse
import time
from collections.abc import Iterator, Sequence

import torch
from das_vs_pyvene import WARM, Hypothesis, Pairs, Took, pairs_of, train_ours, train_pyvene
from grid import Grid
from pyvene_rotation import around_low_rank, constant_recipe
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from weak_sides import Measured, Product, Work, measured, through

from raysearch.core.fit_keys import FitKeys
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.training.batches import batch_of

K, TOKENS, STEPS = 4, 24, 3
"""Directions; tokens of a prompt, if none is asked to be shorter; steps that are timed."""


def measure_das(
    model: PreTrainedModel, layers: Sequence[int], lengths: Sequence[int], batch: int
) -> Iterator[Measured]:
    """Yields what a step costs, in the first and the middle layer."""
    length = min(TOKENS, max(lengths))
    tokens = (1, length // 2, length - 1)
    at = tuple(dict.fromkeys((layers[0], layers[len(layers) // 2])))
    network, grid = LanguageModel(model), Grid(_drawn(2 * batch, length), at, tokens)
    pairs, recipe = pairs_of(network, grid), constant_recipe(STEPS + WARM, batch, evaluate=10**9)
    asked = argparse.Namespace(rows=64, steps=STEPS)
    for layer in at:
        for token in tokens:
            one, clock = (layer, token, K), time.process_time
            sides = (
                train_ours(network, recipe, [one], pairs, asked, clock),
                _resumed(model, recipe, one, grid, pairs),
                train_pyvene(model, recipe, one, grid, pairs, asked, clock),
            )
            name = f"{length}, {token}, {layer}, DAS of {K}"
            losses = [side.losses[one] for side in sides]
            assert max(losses) - min(losses) < 1e-4, f"{name}: first losses {losses}"
            ours, resumed, theirs = (side.step for side in sides)
            yield measured(name, _work(model, one, length, batch), (ours, resumed, theirs))


def _drawn(count: int, length: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Draws pairs of random prompts."""
    draw = torch.Generator().manual_seed(length)
    ids = torch.randint(5000, 40000, (count, 2, length), generator=draw).tolist()
    return tuple((tuple(base), tuple(source)) for base, source in ids)


def _resumed(
    model: PreTrainedModel, recipe: FitKeys, one: Hypothesis, grid: Grid, pairs: Pairs
) -> Took:
    (layer, token, k), core, losses, began = one, model.model, [], 0.0
    _, rotation = around_low_rank(model, layer, k, model.config.hidden_size, seed=0)
    optimizer = torch.optim.Adam(rotation.parameters(), lr=recipe.learning_rate)
    bases, sources = (_after(model, layer, grid.ids(side)) for side in (0, 1))
    wanted, at = torch.tensor(pairs.targets), torch.arange(bases.shape[1])[None]
    for step in range(recipe.steps):
        began = time.process_time() if step == WARM else began
        batch = batch_of(range(len(wanted)), recipe.batch, 0, step)
        hidden, source = bases[batch], sources[batch, token]
        hidden[:, token] = rotation(hidden[:, token].clone(), source)
        rotary = core.rotary_emb(hidden, at)
        for block in core.layers[layer + 1 :]:
            hidden = block(hidden, attention_mask=None, position_ids=at, position_embeddings=rotary)
        logits = model.lm_head(core.norm(hidden[:, -1]))
        loss = functional.cross_entropy(logits, wanted[batch])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return Took(0.0, (time.process_time() - began) / STEPS, {one: losses[0]})


@torch.no_grad()
def _after(model: PreTrainedModel, layer: int, ids: Tensor) -> Tensor:
    """The residual after a block, of each token."""
    kept: list[Tensor] = []
    block = model.model.layers[layer]
    handle = block.register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    model.model(input_ids=ids, use_cache=False)
    handle.remove()
    return kept[0]


def _work(model: PreTrainedModel, one: Hypothesis, length: int, rows: int) -> Work:
    """Forward, and the gradients by the inputs of what lies above the patch; pyvene's head puts out
    the logits of every token, in both runs."""
    layer, token, _ = one
    below, above = model.model.layers[: layer + 1], model.model.layers[layer + 1 :]
    suffix, whole, head = rows * (length - token), rows * length, model.lm_head
    return Work(
        [*through(above, suffix, suffix), Product(head, rows, rows)],
        [*through(above, whole, whole), Product(head, rows, rows)],
        [*through(below, 2 * whole), *through([*above, head], 2 * whole, whole)],
    )
