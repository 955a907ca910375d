"""Strategies: valid jobs and files of pairs, and what becomes of them under a slip of the hand, a
script gone wrong, a damaged disk.

Invariants: everything is drawn through hypothesis, so that a case that fails is shrunk and comes
again.
"""

import copy
import json
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import strategies as st

Tree = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

_JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, -1, 1, 3, 10**9, 10**30, -(10**30), 0.5, 1e308, -0.0),
        *(float("nan"), float("inf"), float("-inf"), "", " ", "all", "auto", "last", "none", "nan", "1e3", "\x00", "a\nb"),
        *("🦜", "á́", "\u202e", "../../etc/passwd", "x" * 5000, "{layer}", "a:b", "s3://bucket/x", "~", "--set"),
        *([], {}, [[]], [None], [{}], {"": ""}, {"from": 3}, {"from": 0, "to": 10**18}, {"das": [10**9]}, {1: 2}),
        *([1, 1], [-1], ["a", "a"], [0.5], {"tokens": [0]}, {"text": 3}, [5, 2], [0, 10**9], [-3, 2], [1], [0, 0, 0]),
    ]
) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
JUNK = _JUNK.map(copy.deepcopy)
"""What may stand where something else should; a copy, since it may be bent in turn."""

TEXTS = (
    "\t",
    "\x00",
    "﻿",
    "---\n",
    "- ",
    ": ",
    "{",
    "]",
    "&a ",
    "*a",
    "!!python/object:os.x ",
    "!!binary x",
    "<<: 3\n",
    "'",
    '"',
    "\\",
)
"""What may stray into a text."""

WHOLE = (
    b"", b"\n\n", b"3", b"[1, 2]", b"null", b'"name"', b"\xff\xfe\x00", b"name: [", b"[" * 5000, b"{" * 5000, b"a: " * 3000,
    b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", b"name: x\nname: y\n", b"? [1, 2]\n: 3\n", b"2001-99-99: 1\n", b"x: 2001-99-99\n",
    b"x: " + b"9" * 5000, b"x: !!timestamp y\n", b"x: !!int y\n", b"%YAML 9\n---\n", b"a: 1\n---\nb: 2\n", b"x: !!set {a, b}\n",
    b"{? !!set {a} : 1}", b"\xef\xbb\xbfname: x\n", b"x: 0x\n", b"x: 1:99:99:99e5\n", b"!!omap [a: 1]\n", b"x: !!float z\n",
    b'{"base": ' * 3000, b'{"base": 1e999999}', b'{"base": NaN}', b'{"a": 1, "a": 2}', b'{"base": {"text": "\\ud800"}}',
)  # fmt: skip
"""Files that are no job and no pairs at all."""


@st.composite
def broken_jobs(draw: Draw, jobs: list[Tree]) -> bytes:
    """The bytes of a job file that was valid before one to three things happened to it."""
    if draw(st.integers(0, 9)) == 0:
        return bytes(draw(st.sampled_from(WHOLE) | st.binary(max_size=40)))
    job = copy.deepcopy(draw(st.sampled_from(jobs)))
    for _ in range(draw(st.integers(1, 3))):
        _bend(draw, job)
    text = yaml.safe_dump(job, sort_keys=False, allow_unicode=draw(st.booleans()))
    return _damaged(draw, text.encode("utf-8", "surrogatepass"))


@st.composite
def broken_pairs(draw: Draw, lines: list[Tree]) -> bytes:
    """The bytes of a file of pairs, some of its lines bent, then perhaps the whole damaged."""
    if draw(st.integers(0, 14)) == 0:
        return bytes(draw(st.sampled_from(WHOLE) | st.binary(max_size=40)))
    pairs = copy.deepcopy(lines[: draw(st.integers(1, len(lines)))])
    for _ in range(draw(st.integers(1, 3))):
        _bend(draw, draw(st.sampled_from(pairs)))
    text = "\n".join(json.dumps(p, ensure_ascii=draw(st.booleans()), default=str) for p in pairs)
    return _damaged(draw, text.encode("utf-8", "surrogatepass"))


def _bend(draw: Draw, tree: Tree) -> None:
    """One thing in it, however deep, is taken out, put in, renamed or replaced."""
    place: Any = tree
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and draw(st.integers(0, 3)):
            place = place[key]
            continue
        match draw(
            st.sampled_from(
                ("like", "like", "like", "like", "replace", "delete", "rename", "twice")
            )
        ):
            case "like":
                place[key] = draw(_like(place[key]))
            case "replace":
                place[key] = draw(JUNK)
            case "delete":
                del place[key]
            case "rename" if isinstance(place, dict) and isinstance(key, str):
                place[f"{key[1:]}{key[:1]}"] = place.pop(key)
            case _ if isinstance(place, list):
                place.append(copy.deepcopy(place[key]))
            case _:
                place[draw(st.text(max_size=6))] = draw(JUNK)
        return
    if isinstance(place, list):
        place.append(draw(JUNK))
    else:
        place[draw(st.text(max_size=6))] = draw(JUNK)


WORDS = (
    "a", "b", "c", "sum_ab", "total", "plus1", "last", "residual", "block_input", "embedding", "head", "query", "mlp_output",
    "model.norm.input", "all", "joint", "full", "bfloat16", "test", "fit", "holdout", "fixed", "both", "unfiltered",
    "class", "these_pairs", "random_model",
    "placebo", "arbitrary_labels", "1+2+3=", "9+9+9=", "1+2+3", "12", "7", "=", "+", " 7", "7 ", "٣", "1\u200b", "\n",
    "raysearch.problems.capitals",     "raysearch.problems.nothing", "os", "nothing.py:problem", "owner/model",
    "pairs.jsonl", "job.yaml", ".", "/", "mean_difference",
)  # fmt: skip
"""What the format, the problem or the model knows, where it may not stand, and near misses."""


def _like(value: Any) -> st.SearchStrategy[Any]:
    """Something of the same kind, so that what looks at types alone lets it through."""
    if isinstance(value, bool):
        return st.just(not value)
    if isinstance(value, int):
        return st.sampled_from([0, 1, 2, 3, 5, value + 1, value - 1, 64, 10**9]) | st.integers(
            -3, 300
        )
    if isinstance(value, float):
        return st.sampled_from([0.0, 1.0, 1e-300, 1 - 1e-16, 0.5]) | st.floats(0, 1)
    if isinstance(value, str):
        return (
            st.sampled_from(WORDS)
            | st.text(max_size=4)
            | st.just(value[::-1])
            | st.just(value + value)
        )
    if isinstance(value, list):
        return (
            st.permutations(value)
            | st.just(value[1:])
            | st.just(value * 2)
            | st.lists(JUNK, max_size=2)
        )
    if isinstance(value, dict) and value:
        return st.just(dict(list(value.items())[1:])) | st.sampled_from(list(value)).map(
            lambda key: {key: value[key]}
        )
    return JUNK


def _damaged(draw: Draw, text: bytes) -> bytes:
    """Now and then cut short, a line of it twice, or with something in it that does not belong
    there."""
    at = draw(st.integers(0, len(text)))
    match draw(
        st.sampled_from(
            ("whole", "whole", "whole", "whole", "whole", "cut", "line", "stray", "byte")
        )
    ):
        case "cut":
            return text[:at]
        case "line":
            lines = text.split(b"\n")
            return b"\n".join([*lines, draw(st.sampled_from(lines))])
        case "stray":
            return text[:at] + draw(st.sampled_from(TEXTS)).encode() + text[at:]
        case "byte":
            return text[:at] + bytes([draw(st.integers(0, 255))]) + text[at + 1 :]
    return text
