"""The engine on a device that is not the CPU, in a process of its own (`other_device_runs`):
results are those of the CPU, and a wave waits once for the device, a step of training never."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from raysearch.engine.execution import attention_kernels
from tests.engine.worlds import model_of

ROOT = Path(__file__).parents[2]
ONE_THREAD = {"HF_DEACTIVATE_ASYNC_LOAD": "1"}
"""Of the environment: transformers reads weights in the thread that asks; others do not know the
other device."""
QUICK = (
    *("swaps llama float32", "fits gpt2 float32"),
    *("generation llama float32", "tensors mlp", "tensors gru"),
    *("waves", "tensor waves", "steps", "looks", "loading", "rules"),
)
"""Runs of one process; the others have one each."""
FAMILIES, DTYPES = ("llama", "gpt2", "gemma2"), ("float32", "bfloat16")
OF_FAMILIES = [
    " ".join(of) for of in product(("swaps", "sequences", "fits", "generation"), FAMILIES, DTYPES)
]
SAME = [*OF_FAMILIES, "tensors mlp", "tensors gru", "tensors vit"]
WAITS = {"item", "bool", "equal", "tolist", "to the CPU", "bool index", "nonzero", "masked_select"}
STOPPING_UPLOADS = {"copy", "list index", "index on the CPU"}
UPLOADS = {*STOPPING_UPLOADS, "copy, not waiting"}
MOST_UPLOADS = 60
"""Copies to the device of a wave or a step: a few for each batch in which its runs were made, and
for each place that is patched."""
SIZES, STEPS = (6, 36), 2
"""Rows of the two waves, or pairs of the steps, that are counted; the number of these steps."""
NEAR_TIES = 0.1
"""Share of results in bfloat16 that may differ, since the attention is computed in another order."""


@cache
def ran(names: tuple[str, ...]) -> dict[str, Any]:
    """What each run told, by its name."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.other_device_runs", *names],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["run"] for line in lines] == list(names), done.stderr
    return {line["run"]: line for line in lines}


def told(name: str) -> dict[str, Any]:
    line: dict[str, Any] = ran(QUICK if name in QUICK else (name,))[name]
    assert "error" not in line, line["error"]
    assert not line["warned"] or name.endswith("bfloat16"), line["warned"]
    return line


def leaves(of: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields what is in lists and dicts, with its place."""
    if isinstance(of, dict | list):
        for at, one in of.items() if isinstance(of, dict) else enumerate(of):
            yield from leaves(one, f"{place}/{at}")
    else:
        yield place, of


def differ(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return not math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return bool(one != other)


@pytest.mark.parametrize(
    "name", [of if of in QUICK else pytest.param(of, marks=pytest.mark.slow) for of in SAME]
)
def test_results_on_another_device_are_those_of_the_cpu(name: str) -> None:
    line, half = told(name), name.endswith("bfloat16")
    ours, theirs = (list(leaves(line[device])) for device in ("cpu", "other"))
    assert [place for place, _ in ours] == [place for place, _ in theirs]
    assert len(ours) > 10
    pairs = zip(ours, theirs, strict=True)
    apart = [(*a, b) for a, (_, b) in pairs if differ(a[1], b, 0.1 if half else 1e-4)]
    assert len(apart) <= (NEAR_TIES * len(ours) if half else 0), apart
    if not name.startswith("generation"):
        path = "batched" if name.startswith("tensors") else "replay"
        assert (line["cpu"]["path"], line["other"]["path"]) == (path, path)
        assert not line["other"].get("failed"), "no wave failed, whose rows then ran one by one"


def counts(found: Sequence[Sequence[Any]], kinds: set[str]) -> dict[str, int]:
    """How often something of these kinds was found, by kind and place."""
    return {f"{kind} at {place}": count for kind, place, count in found if kind in kinds}


def check_uploads(found: Sequence[Sequence[Sequence[Any]]], steps: int = 1) -> None:
    """None of `steps` waits for a copy to the device, or copies for each of the further rows."""
    for of_size in found:
        assert not counts(of_size, STOPPING_UPLOADS)
    few, many = (sum(counts(of_size, UPLOADS).values()) for of_size in found)
    assert many <= MOST_UPLOADS * steps
    assert many - few < steps * (SIZES[1] - SIZES[0])


@pytest.mark.parametrize("run", ["waves", "tensor waves"])
def test_a_wave_waits_once_for_the_device(run: str) -> None:
    waves = told(run)["other"]
    assert len(waves) >= 12
    for name, found in waves.items():
        few, many = (counts(of_size, WAITS) for of_size in found)
        assert few == many, "as often, whatever the rows"
        if not name.startswith(("scores", "three tokens")):
            assert list(many.values()) == [1], name
            assert "to the CPU at engine/execution/predict.py" in next(iter(many))
            check_uploads(found)


def test_a_wave_with_scores_or_further_tokens_waits_a_few_times_whatever_its_rows() -> None:
    for name, most in (("scores, whole", 4), ("three tokens, whole", 5)):
        few, many = told("waves")["other"][name]
        assert counts(few, STOPPING_UPLOADS) == counts(many, STOPPING_UPLOADS)
        assert 1 <= sum(counts(many, WAITS).values()) <= most
        assert sum(counts(many, STOPPING_UPLOADS).values()) <= 1


@pytest.mark.parametrize("kind", ["gpt2", "mlp"])
def test_a_step_of_training_never_waits_for_the_device(kind: str) -> None:
    """Steps of all kinds of training."""
    found = told("steps")["other"][kind]
    for of_size in found:
        assert not counts(of_size, WAITS)
    check_uploads(found, STEPS)


@pytest.mark.parametrize("what", ["fit", "attribution"])
def test_no_wait_for_the_device_is_of_a_row_where_many_are_looked_at(what: str) -> None:
    """Validation, rows that change nothing, and attribution; a few rows are checked one by one."""
    few, many = (counts(found, WAITS | STOPPING_UPLOADS) for found in told("looks")["other"][what])
    grown = {place: count - few.get(place, 0) for place, count in many.items()}
    assert max(grown.values()) <= 3, grown


def test_weights_are_read_straight_to_the_device_where_accelerate_is_installed() -> None:
    found = told("loading")["other"]
    here = sum(float(weight.double().sum()) for weight in model_of("llama").parameters())
    assert [of["devices"] for of in found.values()] == [["other:0"]] * 2
    assert [of["sum"] for of in found.values()] == pytest.approx([here, here])
    assert (found["straight"]["moves"], found["moved"]["moves"]) == (0, 1)


def test_the_device_refuses_and_counts_what_a_gpu_does() -> None:
    assert told("rules")["other"] == {
        "add": ["RuntimeError"],
        "write": ["RuntimeError"],
        "numpy": ["TypeError"],
        "number": [],
        "item": ["item"],
        "if": ["item"],
        "tolist": ["tolist"],
        "to the CPU": ["to the CPU"],
        "copy to the CPU": ["to the CPU"],
        "to the device": ["copy"],
        "tensor": ["copy"],
        "not waiting": ["copy, not waiting"],
        "list": ["list index"],
        "write at a list": ["list index"],
        "index": ["index on the CPU"],
        "index there": ["copy, not waiting"],
        "mask": ["bool index"],
        "nonzero": ["nonzero"],
        "equal": ["equal"],
        "slice": [],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (40, 19), (1, 33), (64, 32)])
def test_the_kernels_of_a_gpu_give_the_shapes_that_attention_in_parts_needs(
    dtype: torch.dtype, queries: int, keys: int
) -> None:
    """By torch's own account of them, without a GPU: that of float32 pads the log-sum-exp."""
    with FakeTensorMode():
        query = torch.empty(3, 4, queries, 64, dtype=dtype, device="cuda")
        key = torch.empty(3, 4, keys, 64, dtype=dtype, device="cuda")
        out, total = attention_kernels.part(query, key, key, queries == keys, 0.3)
    assert (out.shape, out.dtype) == (query.shape, dtype)
    assert (total.shape, total.dtype) == (query.shape[:3], torch.float32)
    assert out.device == total.device == query.device
