"""pairs.parquet: every pair of a run, as text (or tensor), as the model sees it, and how the model
answers.

Invariants: what is read back equals what was written, so that a resume neither draws nor encodes
again (except `Input.values`, the causal model's setting, which nobody needs after drawing); the
file is replaced as a whole.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from raysearch.causal import Input, LeftOutCount, Pair, Split, Stimulus
from raysearch.core.events import Encoded, Ids, ModelInput
from raysearch.core.hypothesis import content_id
from raysearch.core.population import SAMPLER, Population
from raysearch.core.records import PairScreened
from raysearch.errors import StoreError, check_memory
from raysearch.storage.digests_json import read_checked
from raysearch.storage.folder import Folder
from raysearch.storage.parquet import from_parquet, to_parquet
from raysearch.store.pairs_schema import PAIRS

FILE = "pairs.parquet"
_LEFT_OUT = b"left_out"
_POPULATION = b"population"
_CONTINUED = b"continued"


@dataclass(frozen=True, slots=True)
class PairsTable:
    """Contents of pairs.parquet; `encoded` is None before encoding, `screened` before the end of
    screening.

    `left_out` counts what never became a pair of the run; `population` is what its verdicts are
    about; `continued` is how often the run was, or is about to be, continued.
    """

    pairs: tuple[Pair, ...]
    encoded: tuple[Encoded, ...] | None
    screened: tuple[PairScreened, ...] | None
    left_out: tuple[LeftOutCount, ...] = ()
    population: Population = SAMPLER
    continued: int = 0


def write_pairs(
    run: Folder,
    pairs: Sequence[Pair],
    encoded: Sequence[Encoded] | None = None,
    screened: Sequence[PairScreened] | None = None,
    left_out: Sequence[LeftOutCount] = (),
    population: Population = SAMPLER,
) -> None:
    """Writes pairs.parquet with these pairs, in their order.

    Raises:
        StoreError: it cannot be written.
    """
    run.write(FILE, pairs_content(pairs, encoded, screened, left_out, population))


def pairs_content(
    pairs: Sequence[Pair],
    encoded: Sequence[Encoded] | None = None,
    screened: Sequence[PairScreened] | None = None,
    left_out: Sequence[LeftOutCount] = (),
    population: Population = SAMPLER,
    continued: int = 0,
) -> bytes:
    """Returns the bytes of pairs.parquet with these pairs, in their order."""
    encoded_by = {e.index: e for e in encoded or ()}
    screened_by = {s.pair: s for s in screened or ()}
    rows = [_row(p, encoded_by.get(p.index), screened_by.get(p.index)) for p in pairs]
    flags = {b"encoded": _flag(encoded), b"screened": _flag(screened)}
    flags[_POPULATION] = json.dumps(asdict(population)).encode()
    if continued:
        flags[_CONTINUED] = str(continued).encode()
    if left_out:
        flags[_LEFT_OUT] = json.dumps([asdict(left) for left in left_out]).encode()
    schema = PAIRS.with_metadata({**(PAIRS.metadata or {}), **flags})
    return to_parquet(pa.Table.from_pylist(rows, schema=schema))


def read_pairs(run: Folder) -> PairsTable:
    """Reads the pairs of a run.

    Raises:
        StoreError: the file is missing, damaged, or not of this form.
    """
    with _reading(run) as (rows, flags):
        return PairsTable(
            tuple(_pair(r) for r in rows),
            tuple(_encoded(r) for r in rows) if flags.get(b"encoded") == b"yes" else None,
            tuple(_screened(r) for r in rows) if flags.get(b"screened") == b"yes" else None,
            tuple(LeftOutCount(**left) for left in json.loads(flags.get(_LEFT_OUT, b"[]"))),
            Population(**json.loads(flags.get(_POPULATION, b"{}"))),
            int(flags.get(_CONTINUED, b"0")),
        )


def read_encoded(run: Folder) -> list[tuple[Encoded, Split, int | None]]:
    """Reads the pairs of a run as the model gets them, with split and matching, which is half as
    much work as all of them; none before encoding.

    Raises:
        StoreError: as `read_pairs`.
    """
    with _reading(run) as (rows, flags):
        if flags.get(b"encoded") != b"yes":
            return []
        return [(_encoded(r), r["split"], r.get("matching")) for r in rows]


@contextmanager
def _reading(run: Folder) -> Iterator[tuple[list[dict[str, Any]], Mapping[bytes, bytes]]]:
    """Reads the rows and the metadata; errors while they are used are errors of the file."""
    path = run.shown(FILE)
    if not run.exists(FILE):
        raise StoreError(
            f"{path}: is missing, so the run never got as far as its pairs; submit the job again"
        )
    try:
        table = from_parquet(read_checked(run, FILE))
        yield table.to_pylist(), table.schema.metadata or {}
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as e:
        check_memory(e, f"reading {path}")
        raise StoreError(
            f"{path}: cannot be read as pairs of this version ({e!r:.200}); restore it from a copy"
        ) from e


def pairs_digest(pairs: Sequence[Pair]) -> str:
    """Returns 16 hex digits that identify pairs by content, those of continuations left out.

    They are the first of the SHA-256 over texts or tensors, positions, answers, counterfactuals and
    splits, in their order.
    """
    return content_id(
        [
            [
                p.index,
                _plain_input(p.base),
                {name: _plain_input(s) for name, s in p.sources.items()},
                dict(p.answers),
                dict(p.counterfactual),
                p.split,
                p.set,
                *([list(p.choices)] if p.choices else []),
                *([] if p.matching is None else [p.matching]),
            ]
            for p in pairs
            if not p.added
        ]
    )


def _plain_input(i: Input) -> list[Any]:
    return [i.content, {name: list(at) for name, at in (*i.spans.items(), *i.tokens.items())}]


def _flag(what: object) -> bytes:
    return b"no" if what is None else b"yes"


def _row(pair: Pair, encoded: Encoded | None, screened: PairScreened | None) -> dict[str, Any]:
    return {
        "index": pair.index,
        "split": pair.split,
        "set": pair.set,
        "base_text": pair.base.text or None,
        "base_tensor": _tensor(pair.base),
        "base_ids": encoded and _token_ids(encoded.base),
        "base_positions": _positions(pair.base, encoded.base_positions if encoded else None),
        "base_answer": pair.answers.get("base"),
        "base_answer_ids": encoded and encoded.answers.get("base"),
        "sources": [_source(name, pair, encoded, screened) for name in pair.sources],
        "counterfactual": [
            {"variable": v, "answer": a, "ids": encoded and encoded.counterfactual.get(v)}
            for v, a in pair.counterfactual.items()
        ],
        "aliases": encoded
        and [{"said": alias, "answer": answer} for alias, answer in encoded.aliases],
        "choices": pair.choices or None,
        "values": [
            {"variable": variable, "input": name, "value": value}
            for variable, of in pair.values.items()
            for name, value in of.items()
        ]
        or None,
        "matching": pair.matching,
        "added": pair.added or None,
        "choice_ids": encoded and (encoded.choices or None),
        "base_output": screened and screened.base_output,
        "solved": screened and screened.solved,
        "block": None if screened is None else screened.block,
    }


def _source(
    name: str, pair: Pair, encoded: Encoded | None, screened: PairScreened | None
) -> dict[str, Any]:
    outputs = screened.source_outputs if screened else None
    return {
        "name": name,
        "text": pair.sources[name].text or None,
        "tensor": _tensor(pair.sources[name]),
        "ids": encoded and _token_ids(encoded.sources[name]),
        "positions": _positions(
            pair.sources[name], encoded.source_positions.get(name) if encoded else None
        ),
        "answer": pair.answers.get(name),
        "answer_ids": encoded and encoded.answers.get(name),
        "output": outputs.get(name) if outputs else None,
    }


def _tensor(of: Input) -> dict[str, Any] | None:
    if of.stimulus is None:
        return None
    positions = [{"name": name, "tokens": tokens} for name, tokens in of.tokens.items()]
    return {
        "dtype": of.stimulus.dtype,
        "shape": of.stimulus.shape,
        "data": of.stimulus.data,
        "positions": positions,
    }


def _token_ids(given: ModelInput) -> Ids | None:
    return None if isinstance(given, Stimulus) else given


def _positions(of: Input, tokens: Mapping[str, Ids] | None) -> list[dict[str, Any]]:
    """Returns named positions: a text's own first, then those that only its encoding has
    ("last").
    """
    own = of.positions if of.stimulus is None else ()
    names = [*own, *(n for n in tokens or {} if n not in own)]
    return [
        {
            "name": name,
            "start": of.spans[name][0] if name in of.spans else None,
            "end": of.spans[name][1] if name in of.spans else None,
            "tokens": tokens.get(name) if tokens else None,
            "indices": of.tokens.get(name) if name in own else None,
        }
        for name in names
    ]


def _pair(row: dict[str, Any]) -> Pair:
    answers = {"base": row["base_answer"], **{s["name"]: s["answer"] for s in row["sources"]}}
    return Pair(
        index=row["index"],
        base=_input(row["base_text"], row["base_positions"], row.get("base_tensor")),
        sources={
            s["name"]: _input(s["text"], s["positions"], s.get("tensor")) for s in row["sources"]
        },
        answers={name: answer for name, answer in answers.items() if answer is not None},
        counterfactual={c["variable"]: c["answer"] for c in row["counterfactual"]},
        split=row["split"],
        set=row["set"],
        choices=tuple(row.get("choices") or ()),
        values=_values(row),
        matching=row.get("matching"),
        added=row.get("added") or 0,
    )


def _input(
    text: str | None, positions: list[dict[str, Any]], tensor: dict[str, Any] | None
) -> Input:
    if tensor is not None:
        tokens = {p["name"]: tuple(p["tokens"]) for p in tensor["positions"]}
        return Input(stimulus=_stimulus(tensor), tokens=tokens)
    if text is None:
        raise TypeError("an input is a text or a tensor, and this is neither")
    spans = {p["name"]: (p["start"], p["end"]) for p in positions if p["start"] is not None}
    return Input(
        text,
        spans,
        tokens={p["name"]: tuple(p["indices"]) for p in positions if p.get("indices") is not None},
    )


def _stimulus(tensor: dict[str, Any]) -> Stimulus:
    return Stimulus(tensor["dtype"], tuple(tensor["shape"]), tensor["data"])


def _model_input(ids: list[int] | None, tensor: dict[str, Any] | None) -> ModelInput:
    if tensor is not None:
        return _stimulus(tensor)
    if ids is None:
        raise TypeError("an encoded input has ids or a tensor, and this has neither")
    return tuple(ids)


def _encoded(row: dict[str, Any]) -> Encoded:
    answers = {
        "base": row["base_answer_ids"],
        **{s["name"]: s["answer_ids"] for s in row["sources"]},
    }
    return Encoded(
        index=row["index"],
        base=_model_input(row["base_ids"], row.get("base_tensor")),
        sources={s["name"]: _model_input(s["ids"], s.get("tensor")) for s in row["sources"]},
        base_positions=_tokens(row["base_positions"]),
        source_positions={s["name"]: _tokens(s["positions"]) for s in row["sources"]},
        answers={name: tuple(ids) for name, ids in answers.items() if ids is not None},
        counterfactual={
            c["variable"]: tuple(c["ids"]) for c in row["counterfactual"] if c["ids"] is not None
        },
        aliases=tuple((tuple(a["said"]), tuple(a["answer"])) for a in row.get("aliases") or ()),
        choices=tuple(row.get("choice_ids") or ()),
        values=_values(row),
        added=row.get("added") or 0,
    )


def _values(row: dict[str, Any]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for value in row.get("values") or ():
        found.setdefault(value["variable"], {})[value["input"]] = value["value"]
    return found


def _tokens(positions: list[dict[str, Any]]) -> dict[str, Ids]:
    return {p["name"]: tuple(p["tokens"]) for p in positions if p["tokens"] is not None}


def _screened(row: dict[str, Any]) -> PairScreened:
    outputs = {s["name"]: tuple(s["output"]) for s in row["sources"] if s["output"] is not None}
    return PairScreened(
        pair=row["index"],
        base_output=_ids(row["base_output"]),
        source_outputs=outputs or None,
        solved=row["solved"],
        split=row["split"],
        block=row["block"],
    )


def _ids(raw: list[int] | None) -> Ids | None:
    return None if raw is None else tuple(raw)
