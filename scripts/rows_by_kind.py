"""Counts what a run's rows were spent on: `python scripts/rows_by_kind.py RUN [MODEL]`.

A row is one pair under one intervention. Screening, which runs inputs without any, is apart. With
the folder of a Llama-like MODEL the multiply-adds are reckoned too, as the engine needs them where
nothing is free: each distinct prompt once, whole; a row from the layer and the first token that it
changes on, and the head at one token; effects on fit pairs as three runs of the base, and one of
the source. Subspaces that are trained are not counted.
"""

import json
import sys
from collections import Counter, defaultdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Rows = dict[str, Any]


def entries(run: Path) -> list[Rows]:
    """Returns the journal's entries."""
    lines = (p.read_text().splitlines() for p in sorted((run / "journal").glob("*/*.jsonl")))
    return [json.loads(line)["entry"] for of in lines for line in of]


def kind_of(entry: Rows, controls: dict[str, str | None]) -> str | None:
    """Returns what the rows of an entry were spent on; None if it has none."""
    if entry["type"] == "screened":
        return f"screening: {entry['split']}"
    if entry["type"] != "measured":
        return None
    name = entry["intervention"].partition("@")[0]
    own = controls.get(name, "no hypothesis: its control")
    return f"{entry['split']}: {own or 'hypotheses'}"


def table(run: Path, name: str, columns: list[str]) -> list[Rows]:
    """Returns the rows of a table of the run."""
    parts = sorted((run / "tables" / name).glob("*.parquet"))
    return [row for part in parts for row in pq.read_table(part, columns=columns).to_pylist()]


class Work:
    """Multiply-adds of a run on a model of equal layers.

    Args:
        config: the model's config.json.
    """

    def __init__(self, config: Rows) -> None:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        self._layers: int = config["num_hidden_layers"]
        self._attention = heads * (width := config.get("head_dim") or hidden // heads)
        values = width * (config.get("num_key_value_heads") or heads)
        self._linear = (
            2 * hidden * (self._attention + values) + 3 * hidden * config["intermediate_size"]
        )
        self._head = hidden * config["vocab_size"]

    def of(self, length: int, start: int = 0, layer: int = -1) -> float:
        """Returns those of the layers after `layer` at the tokens from `start` on, and of the head."""
        tokens = length - start
        scores = 2 * self._attention * tokens * (length - (tokens - 1) / 2)
        return (self._layers - 1 - layer) * (tokens * self._linear + scores) + self._head


def names_of(row: Rows) -> list[str]:
    """Returns the names of a row's intervention and of its controls on the holdout."""
    of = {"units": json.loads(row["units"]), "kind": "interchange", "variable": None}
    for site in (s for u in of["units"] for s in (u["site"], u["source_site"]) if s):
        site["layer"] = site["layer"] or 0
    texts = (
        json.dumps({**of, "control": name}, sort_keys=True, separators=(",", ":"))
        for name in ("self_swap", "random_source")
    )
    return [row["intervention"], *(sha256(text.encode()).hexdigest()[:16] for text in texts)]


def multiply_adds(run: Path, config: Rows) -> dict[str, float]:
    """Returns the multiply-adds by kind."""
    work, found, prompts = Work(config), defaultdict[str, float](float), set[tuple[int, ...]]()
    pairs = {row["index"]: row for row in pq.read_table(run / "pairs.parquet").to_pylist()}
    hypotheses = table(run, "hypotheses", ["intervention", "control", "units"])
    controls = {row["intervention"]: row["control"] for row in hypotheses}
    sites = {name: json.loads(row["units"]) for row in hypotheses for name in names_of(row)}
    for entry in entries(run):
        if entry["type"] == "attributed":
            for pair in (pairs[p] for p in entry["pairs"]):
                source = len(pair["sources"][0]["ids"])
                found["effects on fit pairs"] += 3 * work.of(len(pair["base_ids"])) + work.of(
                    source
                )
        if (kind := kind_of(entry, controls)) is None:
            continue
        for pair in (pairs[p] for p in entry["pairs"]):
            new = {tuple(pair["base_ids"]), *(tuple(s["ids"]) for s in pair["sources"])} - prompts
            found[kind.partition(":")[0] + ": prompts, once"] += sum(work.of(len(p)) for p in new)
            prompts |= new
            if entry["type"] == "measured":
                units = sites[entry["intervention"].partition("@")[0]]
                at = [token_of(pair, u["site"]["position"]) for u in units]
                layer = min((u["site"]["layer"] for u in units), default=-1)
                found[kind] += work.of(len(pair["base_ids"]), min(at, default=0), layer)
    return dict(found)


def token_of(pair: Rows, position: str) -> int:
    """Returns the first token of a position of a pair's base."""
    if position == "last":
        return len(pair["base_ids"]) - 1
    return next(min(p["tokens"]) for p in pair["base_positions"] if p["name"] == position)


def rows_by_kind(run: Path) -> Counter[str]:
    """Returns the number of rows by kind: tests, job controls, and what the holdout took."""
    hypotheses = table(run, "hypotheses", ["intervention", "control"])
    controls = {row["intervention"]: row["control"] for row in hypotheses}
    found: Counter[str] = Counter()
    for entry in entries(run):
        if (kind := kind_of(entry, controls)) is not None:
            found[kind] += len(entry["pairs"])
    return found


def main(run: Path, model: Path | None) -> None:
    kinds = rows_by_kind(run)
    measured = sum(n for kind, n in kinds.items() if not kind.startswith("screening"))
    for kind, n in sorted(kinds.items()):
        share = "" if kind.startswith("screening") else f"  {n / measured:.1%}"
        sys.stdout.write(f"{kind:<42}{n:>9}{share}\n")
    sys.stdout.write(f"{'all rows under an intervention':<42}{measured:>9}\n")
    if model is not None:
        work = multiply_adds(run, json.loads((model / "config.json").read_text()))
        for kind, n in sorted(work.items()):
            sys.stdout.write(f"{kind:<42}{2e-9 * n:>9.0f} GFLOP\n")
        sys.stdout.write(f"{'in all':<42}{2e-9 * sum(work.values()):>9.0f} GFLOP\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
