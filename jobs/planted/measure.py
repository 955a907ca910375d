"""Measures, by hand, which variable every cell of the planted model carries: the truth that a
search must find.

    python jobs/planted/measure.py [--model FOLDER] [--out FILE] [--pairs N] [--seed N]

Invariants: nothing of raysearch is imported: sums, counterfactuals and hooks are written out here;
every swap is two plain forward passes of the whole model and one hook that puts the source's
residual in after one layer at one token. IIA is over the change pairs of the variable: those whose
counterfactual differs from the base's answer.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
POSITIONS = ("a", "plus1", "b", "plus2", "c", "last")
COUNTERFACTUALS: dict[
    str, Callable[[Tensor, Tensor], Tensor]
] = {  # of numbers [pair, (a, b, c)]: base, source
    "a": lambda base, source: source[:, 0] + base[:, 1] + base[:, 2],
    "b": lambda base, source: base[:, 0] + source[:, 1] + base[:, 2],
    "c": lambda base, source: base[:, 0] + base[:, 1] + source[:, 2],
    "sum_ab": lambda base, source: source[:, 0] + source[:, 1] + base[:, 2],
    "total": lambda base, source: source[:, 0] + source[:, 1] + source[:, 2],
}
THRESHOLD = 0.8


def encode(tokenizer: object, numbers: Tensor) -> Tensor:
    """Token ids [row, 6] of "a+b+c=" for numbers [row, 3]."""
    texts = ["{}+{}+{}=".format(*row) for row in numbers.tolist()]
    ids = tokenizer(texts, return_tensors="pt")["input_ids"]
    assert ids.shape[1] == len(POSITIONS), f"{texts[0]!r} has {ids.shape[1]} tokens"
    return ids


@torch.no_grad()
def answers_under_swap(
    model: object, base: Tensor, source: Tensor, layer: int, token: int
) -> Tensor:
    """The arg max at the last token, [row], for base ids with the source's residual after `layer`
    put in at `token`."""
    block, seen = model.model.layers[layer], []
    handle = block.register_forward_hook(
        lambda _module, _args, out: seen.append(out[:, token].clone())
    )
    model(source, use_cache=False)
    handle.remove()

    def put(_module: object, _args: object, out: Tensor) -> Tensor:
        out = out.clone()
        out[:, token] = seen[0]
        return out

    handle = block.register_forward_hook(put)
    logits = model(base, use_cache=False).logits
    handle.remove()
    return logits[:, -1].argmax(1)


def measure(folder: Path, pairs: int, seed: int) -> list[dict[str, object]]:
    """Every cell: variable, layer, position, iia, and n, the number of change pairs."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    generator = torch.Generator().manual_seed(seed)
    base = torch.randint(10, (pairs, 3), generator=generator)
    source = torch.randint(10, (pairs, 3), generator=generator)
    number = torch.tensor(tokenizer.convert_tokens_to_ids([str(n) for n in range(28)]))
    base_ids, source_ids = encode(tokenizer, base), encode(tokenizer, source)
    cells = []
    for layer in range(model.config.num_hidden_layers):
        for token, position in enumerate(POSITIONS):
            answers = answers_under_swap(model, base_ids, source_ids, layer, token)
            for variable, counterfactual in COUNTERFACTUALS.items():
                wanted = counterfactual(base, source)
                change = wanted != base.sum(1)
                hits = (answers == number[wanted])[change]
                iia = round(hits.float().mean().item(), 4)
                cells.append(
                    {
                        "variable": variable,
                        "layer": layer,
                        "position": position,
                        "iia": iia,
                        "n": len(hits),
                    }
                )
    return sorted(cells, key=lambda cell: list(COUNTERFACTUALS).index(cell["variable"]))


def write(cells: list[dict[str, object]], out: Path, pairs: int, seed: int) -> None:
    """The file that tests read: all cells, and those whose IIA is above THRESHOLD; one cell a line."""
    true = [cell for cell in cells if cell["iia"] > THRESHOLD]
    lines = [f'  "threshold": {THRESHOLD},', f'  "pairs": {pairs},', f'  "seed": {seed},']
    for key, rows in (("true_cells", true), ("cells", cells)):
        body = ",\n".join("    " + json.dumps(row) for row in rows)
        lines.append(f'  "{key}": [\n{body}\n  ]' + ("," if key == "true_cells" else ""))
    out.write_text("\n".join(["{", *lines, "}"]) + "\n")


def show(cells: list[dict[str, object]]) -> str:
    """A Markdown table: one row for each layer and position, one column for each variable."""
    at = {(cell["layer"], cell["position"], cell["variable"]): cell["iia"] for cell in cells}
    head = ["layer", "position", *COUNTERFACTUALS]
    rows = [head, ["---"] * len(head)]
    for layer in sorted({cell["layer"] for cell in cells}):
        for position in POSITIONS:
            values = [at[layer, position, variable] for variable in COUNTERFACTUALS]
            rows.append(
                [
                    str(layer),
                    position,
                    *(f"**{v:.2f}**" if v > THRESHOLD else f"{v:.2f}" for v in values),
                ]
            )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Measures, prints the table, and writes the file of cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=HERE / "model")
    parser.add_argument(
        "--out", type=Path, default=HERE.parents[1] / "tests" / "planted_cells.json"
    )
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = measure(options.model, options.pairs, options.seed)
    write(cells, options.out, options.pairs, options.seed)
    print(show(cells))


if __name__ == "__main__":
    main()
