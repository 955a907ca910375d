"""Cuts the texts of pairs where their positions begin and end, so that a page can mark them.

Invariants: the pieces of a text, joined, are the text with what is invisible escaped; a position
whose characters are not known marks nothing.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from raysearch.report.row_sequence import TableRow
from raysearch.report.run_data import example_pair
from raysearch.storage.digests_json import read_checked
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import FolderLike, open_folder
from raysearch.storage.parquet import from_parquet
from raysearch.store.job_file import read_job
from raysearch.store.pairs_table import FILE
from raysearch.viewer.token_texts import TokenTexts
from raysearch.visible_text import visible

Pieces = list[str | list[Any]]
"""The pieces of a text, each with the numbers of the positions that it belongs to."""


def pair_texts(
    pair: TableRow, texts: TokenTexts, variables: Sequence[str], positions: Mapping[str, int]
) -> dict[str, Any]:
    """Returns a pair as the page shows it; tensors have no text. `positions`: their numbers."""
    counterfactual = {c["variable"]: c["answer"] for c in pair["counterfactual"]}
    out = pair["base_output"]
    return {
        "split": pair["split"],
        "set": _visible(pair["set"]),
        "base": _pieces(
            pair["base_text"], pair["base_ids"], pair["base_positions"], texts, positions
        ),
        "answer": _visible(pair["base_answer"]),
        "output": None if out is None else texts.text(tuple(out)),
        "sources": [
            {
                "name": visible(s["name"]),
                "text": _pieces(s["text"], s["ids"], s["positions"], texts, positions),
                "answer": _visible(s["answer"]),
            }
            for s in pair["sources"]
        ],
        "expected": [_visible(counterfactual.get(v)) for v in variables],
    }


def _pieces(
    text: str | None,
    ids: list[int] | None,
    positions: Sequence[TableRow],
    texts: TokenTexts,
    numbers: Mapping[str, int],
) -> Pieces | None:
    """Returns a text in pieces; None for a tensor."""
    if text is None:
        return None
    spans = position_spans(text, ids or [], positions or (), texts)
    ends = sorted({0, len(text), *(end for span in spans.values() for end in span)})
    found: Pieces = []
    for a, b in pairwise(ends):
        own = [numbers[name] for name, (start, end) in spans.items() if start <= a < end]
        found.append([visible(text[a:b]), *own] if own else visible(text[a:b]))
    return found


def position_spans(
    text: str, ids: list[int], positions: Sequence[TableRow], texts: TokenTexts
) -> dict[str, tuple[int, int]]:
    """Returns the characters [start, end) of each position, where they are known: given with the
    pair, told by the tokenizer, or what other positions leave."""
    found = {p["name"]: (p["start"], p["end"]) for p in positions if p["start"] is not None}
    others = [p for p in positions if p["start"] is None and p["tokens"]]
    if not others:
        return found
    starts, ends = _borders(text, ids, positions, texts)
    for p in others:
        start, end = starts.get(min(p["tokens"])), ends.get(max(p["tokens"]))
        if start is not None and end is not None and start < end:
            found[p["name"]] = start, end
    return found


def example_tokens(pairs: Sequence[TableRow], texts: TokenTexts) -> dict[str, str]:
    """Returns the text of an example's base at each position, where it is known. `pairs`: rows of
    pairs.parquet."""
    pair = example_pair(pairs)
    if pair is None or (text := pair["base_text"]) is None:
        return {}
    spans = position_spans(text, pair["base_ids"], pair["base_positions"] or (), texts)
    return {name: text[a:b] for name, (a, b) in spans.items()}


def pair_rows(run: Folder) -> list[TableRow]:
    """Returns the rows of pairs.parquet; none before there are pairs. Raises: StoreError."""
    return list(from_parquet(read_checked(run, FILE)).to_pylist()) if run.exists(FILE) else []


def read_tokens(run: FolderLike) -> dict[str, str]:
    """Returns the text of an example's base at each position of a run. Raises: StoreError."""
    folder = open_folder(run)
    pairs = pair_rows(folder)
    return example_tokens(pairs, TokenTexts(read_job(folder), pairs))


def _borders(
    text: str, ids: list[int], positions: Sequence[TableRow], texts: TokenTexts
) -> tuple[dict[int, int], dict[int, int]]:
    """Returns the characters at which tokens begin and end, as far as they are known."""
    cut = texts.spans(text, ids)
    if cut is not None:
        return {i: a for i, (a, _) in enumerate(cut)}, {i: b for i, (_, b) in enumerate(cut)}
    starts, ends = {}, {len(ids) - 1: len(text)}
    for p in positions:
        if p["start"] is not None and p["tokens"]:
            starts[min(p["tokens"])], ends[max(p["tokens"])] = p["start"], p["end"]
            starts.setdefault(max(p["tokens"]) + 1, p["end"])
            ends.setdefault(min(p["tokens"]) - 1, p["start"])
    return starts, ends


def _visible(text: str | None) -> str | None:
    return None if text is None else visible(text)
