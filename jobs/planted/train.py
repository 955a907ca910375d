"""Makes the planted model: a Llama of four layers that adds three numbers and carries each variable
where TRUTH says.

    python jobs/planted/train.py [--out FOLDER] [--steps N] [--rows N] [--seed N] [--threads N]

Invariants: everything random comes from the seed; each cell (layer, position) of the residual is
trained to carry what TRUTH says, and where TRUTH is silent a swap must change nothing; PLANTED is
trained to hold a + b in 16 dimensions, and the other 48 to hold nothing. The same seed on another
CPU may give other bits: the weights are kept.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

LAYERS, WIDTH, SIZE = 4, 64, 16
PLUS, EQUALS, PAD = 28, 29, 30  # the token of a number from 0 to 27 is the number itself
POSITIONS = ("a", "plus1", "b", "plus2", "c", "last")
NOTHING = (False, False, False)
TRUTH = {  # (layer, position): does a, b, c come from the source when the whole residual after that layer does?
    (0, "a"): (True, False, False),
    (0, "b"): (False, True, False),
    (0, "c"): (False, False, True),
    (1, "c"): (False, False, True),
    (1, "plus2"): (True, True, False),
    (2, "last"): (True, True, True),
    (3, "last"): (True, True, True),
}
PLANTED = (1, "plus2")
Edits = dict[
    int, Callable[[Tensor], Tensor]
]  # by layer: what becomes of the residual [row, 6, WIDTH]
WHOLE, INSIDE, OUTSIDE = (
    0,
    1,
    2,
)  # which part of the vector is swapped: all, the planted subspace, the rest


@dataclass(frozen=True)
class Swaps:
    """One interchange for each row: layer, position and part (int64, shape [row]); takes: bool,
    [row, (a, b, c)]."""

    layer: Tensor
    position: Tensor
    part: Tensor
    takes: Tensor


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Whole numbers 0 to 27, "+" and "=" as one token each; nothing is added in front."""
    vocab = {**{str(n): n for n in range(28)}, "+": PLUS, "=": EQUALS, "<pad>": PAD}
    tokenizer = Tokenizer(models.WordLevel(vocab))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[0-9]+|[+=]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        model_max_length=32,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(seed: int) -> LlamaForCausalLM:
    """The untrained model; two key/value heads serve four query heads."""
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=WIDTH,
        intermediate_size=128,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.05,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(pad_token_id=PAD)
    return model


def make_basis(seed: int) -> Tensor:
    """Random orthonormal columns, [WIDTH, SIZE]: the planted subspace."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))
    return basis[:, :SIZE].float().contiguous()


def draw_swaps(count: int, generator: torch.Generator) -> Swaps:
    """Half of the rows at a cell of TRUTH or in the planted subspace, the others at any cell or
    beside the subspace."""
    takes = torch.tensor([[TRUTH.get((la, p), NOTHING) for p in POSITIONS] for la in range(LAYERS)])
    cells = [(la, POSITIONS.index(p), WHOLE) for la, p in TRUTH]
    cells += [(PLANTED[0], POSITIONS.index(PLANTED[1]), INSIDE)] * 3
    every = [(la, i, WHOLE) for la in range(LAYERS) for i in range(len(POSITIONS))]
    every += [(PLANTED[0], POSITIONS.index(PLANTED[1]), OUTSIDE)] * 3
    first = torch.tensor(cells)[torch.randint(len(cells), (count // 2,), generator=generator)]
    others = torch.tensor(every)[
        torch.randint(len(every), (count - count // 2,), generator=generator)
    ]
    layer, position, part = torch.cat([first, others]).unbind(1)
    return Swaps(layer, position, part, takes[layer, position] & (part != OUTSIDE)[:, None])


def write(numbers: Tensor) -> Tensor:
    """Token ids [row, 6] of "a+b+c=" for numbers [row, 3]."""
    plus, equals = torch.full_like(numbers[:, 0], PLUS), torch.full_like(numbers[:, 0], EQUALS)
    return torch.stack([numbers[:, 0], plus, numbers[:, 1], plus, numbers[:, 2], equals], 1)


def run(
    model: LlamaForCausalLM, ids: Tensor, edits: Edits | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Logits at the last token [row, token of the vocabulary], and the residual after each layer
    [row, 6, WIDTH]."""
    kept: list[Tensor] = []

    def keep(layer: int, out: Tensor) -> Tensor:
        out = edits[layer](out) if edits else out
        kept.append(out)
        return out

    handles = [
        block.register_forward_hook(lambda _m, _i, out, layer=layer: keep(layer, out))
        for layer, block in enumerate(model.model.layers)
    ]
    try:
        logits = model(ids, use_cache=False).logits[:, -1]
    finally:
        for handle in handles:
            handle.remove()
    return logits, kept


def swap_edits(swaps: Swaps, source: list[Tensor], parts: Tensor) -> Edits:
    """For each layer the function that puts the source's residual in, where the row's swap says so."""

    def edit(layer: int, out: Tensor) -> Tensor:
        rows = torch.nonzero(swaps.layer == layer).squeeze(1)
        at = (rows, swaps.position[rows])
        moved = torch.einsum("rd,rde->re", source[layer][at] - out[at], parts[swaps.part[rows]])
        return out.index_put(at, moved, accumulate=True)

    return {layer: lambda out, layer=layer: edit(layer, out) for layer in range(LAYERS)}


def train(model: LlamaForCausalLM, basis: Tensor, steps: int, rows: int, seed: int) -> None:
    """Trains the model in place: the answers without intervention, and the answers under each row's
    swap."""
    generator = torch.Generator().manual_seed(seed)
    inside, identity = basis @ basis.T, torch.eye(WIDTH)
    parts = torch.stack([identity, inside, identity - inside])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-3, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    warmup = 50
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / warmup, 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * s / steps))),
    )
    for step in range(steps):
        base = torch.randint(10, (rows, 3), generator=generator)
        source = torch.randint(10, (rows, 3), generator=generator)
        swaps = draw_swaps(rows, generator)
        plain, kept = run(model, write(source))
        swapped, _ = run(model, write(base), swap_edits(swaps, kept, parts))
        wanted = torch.where(swaps.takes, source, base).sum(1)
        loss = cross_entropy(plain, source.sum(1)) + cross_entropy(swapped, wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            solved, hit = (
                (plain.argmax(1) == source.sum(1)).float().mean(),
                (swapped.argmax(1) == wanted).float().mean(),
            )
            print(
                f"step {step:5d}  loss {loss.item():.4f}  solved {solved:.3f}  swaps {hit:.3f}",
                flush=True,
            )


def save(model: LlamaForCausalLM, basis: Tensor, folder: Path) -> None:
    """Writes model/ (weights, config, tokenizer) and subspace.safetensors (key "basis") under
    `folder`."""
    disable_progress_bar()
    model.eval()
    model.save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    written = folder / "model" / "tokenizer_config.json"
    config = json.loads(written.read_text()) | {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }  # known to 4.x and 5.x
    written.write_text(json.dumps(config, indent=2) + "\n")
    about = {
        "layer": PLANTED[0],
        "component": "residual",
        "position": PLANTED[1],
        "variable": "sum_ab",
    }
    save_file(
        {"basis": basis}, folder / "subspace.safetensors", {"about": json.dumps(about)}
    )  # one key: no order
    for weights in (folder / "model" / "model.safetensors", folder / "subspace.safetensors"):
        weights.chmod(0o644)  # safetensors writes for the owner alone


def main() -> None:
    """Trains, and writes model/ and subspace.safetensors beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=1, help="two are slower than one at this size"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    model, basis = make_model(options.seed), make_basis(options.seed)
    train(model, basis, options.steps, options.rows, options.seed)
    save(model, basis, options.out)
    print(f"wrote {options.out / 'model'} after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
