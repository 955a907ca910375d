"""jobs/capitals.yaml in float32, bfloat16 and float16, side by side, through the job's own door:
time and verdicts.

    make install && .venv/bin/python benchmarks/half_precision.py [--layers 12] [--threads 1] [--rounds 1] [--dtypes float32 bfloat16]

Each is a run of the job as a notebook begins it: one replica in this process, self-check, canonical
decisions, journal, tables. `opening` is loading and self-check, `search` from the first task to the
last verdict; seconds are of this process's CPU time, so that others on the machine count little.
Rounds alternate; the least time of each counts. Verdicts that differ are shown with the interval of
the IIA, which should hold the threshold. The last line is the ratio of each half precision's search
to float32's, where float32 is among those asked.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

import raysearch as rs
from raysearch import driver
from raysearch.cluster import local_pool
from raysearch.report.run_data import cost_of
from raysearch.storage.open_folder import open_folder

ROOT = Path(__file__).parent.parent
DTYPES = ("float32", "bfloat16", "float16")
UNITS = ("amx_bf16", "amx_fp16", "avx512_bf16", "avx512_fp16")


@dataclass(slots=True)
class Clock:
    """CPU seconds of this process within some functions."""

    opening: float = 0.0
    search: float = 0.0


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: its seconds, its rows by hypothesis, the share of outputs that were decided again,
    the path taken."""

    clock: Clock
    rows: Mapping[str, Mapping[str, object]]
    again: float
    path: str


def main() -> None:
    asked = _asked()
    found: dict[str, Ran] = {}
    for _ in range(asked.rounds):
        for dtype in asked.dtypes:
            ran = run(dtype, asked)
            best = found.get(dtype)
            if best is None or _seconds(ran) < _seconds(best):
                found[dtype] = ran
            print(f"{dtype}: {_seconds(ran):.1f} s", flush=True)
    print(
        f"torch {torch.__version__}, {asked.threads} threads; this processor has "
        f"{', '.join(units()) or 'no half-precision units'}"
    )
    print(
        "| dtype | path | hypotheses | accepted by variable | opening s | search s | decided again "
        "| to float32 | verdicts that differ |"
    )
    print("|" + "---|" * 9)
    first = found.get("float32")
    for dtype, ran in found.items():
        print("\n".join(_lines(dtype, ran, first)))
    if first is None:
        print("ratio: none; float32 was not among --dtypes")
        return
    ratios = {
        d: ran.clock.search / first.clock.search for d, ran in found.items() if d != "float32"
    }
    print(
        "ratio: "
        + (
            ", ".join(f"{dtype} {ratio:.2f}" for dtype, ratio in ratios.items())
            or "none; only float32 was asked"
        )
    )


def _lines(dtype: str, ran: Ran, first: Ran | None) -> list[str]:
    """The row of the table, and each verdict that differs from float32's; without `first`, the run
    in float32, neither is compared."""
    by_variable = {
        v: sum(r["variable"] == v and r["verdict"] == "accept" for r in ran.rows.values())
        for v in sorted({str(r["variable"]) for r in ran.rows.values()})
    }
    counts = ", ".join(f"{v} {n}" for v, n in by_variable.items())
    differ = (
        [k for k, row in ran.rows.items() if row["verdict"] != first.rows[k]["verdict"]]
        if first is not None
        else []
    )
    compared = (
        "- | -" if first is None else f"{ran.clock.search / first.clock.search:.2f} | {len(differ)}"
    )
    row = (
        f"| {dtype} | {ran.path} | {len(ran.rows)} | {counts} | {ran.clock.opening:.1f} | "
        f"{ran.clock.search:.1f} | {ran.again:.1%} "
        f"| {compared} |"
    )
    there = {} if first is None else first.rows
    return [
        row,
        *(f"  {k}: {_verdict(ran.rows[k])} here, {_verdict(there[k])} in float32" for k in differ),
    ]


def run(dtype: str, asked: argparse.Namespace) -> Ran:
    """The job on layers spread over the model."""
    job = rs.Job.load(str(ROOT / "jobs" / "capitals.yaml"))
    layers = sorted({round(i * 29 / max(asked.layers - 1, 1)) for i in range(asked.layers)})
    job = job.model_copy(
        update={
            "model": job.model.model_copy(update={"dtype": dtype}),
            "space": job.space.model_copy(update={"layers": tuple(layers)}),
            "resources": job.resources.model_copy(update={"cpus": asked.threads}),
            "pairs": job.pairs.model_copy(update={"test": asked.pairs}),
            "test": job.test.model_copy(update={"max_pairs": asked.pairs}),
        }
    )
    clock = Clock()
    whole_drive, whole_open = driver.drive, local_pool.open_replica

    def drive(*args: object) -> None:
        began = time.process_time()
        whole_drive(*args)
        clock.search += time.process_time() - began

    def opened(*args: object, **options: object) -> object:
        began = time.process_time()
        replica = whole_open(*args, **options)
        clock.opening += time.process_time() - began
        return replica

    driver.drive, local_pool.open_replica = drive, opened
    try:
        with tempfile.TemporaryDirectory() as store:
            done = rs.run(job, store=store, pool="local", quiet=True)
            table, cost = done.to_arrow().to_pylist(), cost_of(open_folder(done.place))
            path = str((done.info.facts or {}).get("path"))
    finally:
        driver.drive, local_pool.open_replica = whole_drive, whole_open
    return Ran(clock, {str(row["hypothesis"]): row for row in table}, cost.near_tie_share, path)


def units() -> list[str]:
    """What this processor says it has for half precision."""
    told = Path("/proc/cpuinfo")
    flags = told.read_text().split() if told.is_file() else []
    return [unit for unit in UNITS if unit in flags]


def _verdict(row: Mapping[str, object]) -> str:
    return f"{row['verdict']} ({row['iia']:.3f} in [{row['low']:.3f}, {row['high']:.3f}])"


def _seconds(ran: Ran) -> float:
    return ran.clock.opening + ran.clock.search


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--layers", type=int, default=12, help="spread over the 30: 18 hypotheses each"
    )
    parser.add_argument("--pairs", type=int, default=512, help="test pairs at most")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    return parser.parse_args()


if __name__ == "__main__":
    main()
