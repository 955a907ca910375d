"""How long commands take to start, side by side with the imports that they cannot do without.

    python benchmarks/starting.py [--runs 3] [--only plan,run,submit]

Each figure is the median of several fresh processes, taken in turn. A machine that does other work
makes wall time large, so CPU seconds (of the process and its children that have ended) stand
beside it; of `submit`, whose workers end after Ray has let them go, wall time alone says something.

    imports   python -c "import torch, transformers"
    model     python -c "import transformers.modeling_utils": what any model's code needs
    ray       python -c "import ray; ray.init()"
    plan      raysearch plan jobs/quickstart.yaml           goal: 1.2 of imports
    run       raysearch run --pool local jobs/quickstart.yaml    goal: 1.6 of imports
    submit    raysearch submit jobs/quickstart.yaml         goal: 2 of ray and imports together
    untracked the same as run, without MLflow
    new_db    the same as run, with an mlflow.db that is not there yet

Then it says where the seconds of one `run` go: what `python -X importtime` counts for the modules of
each package, and the rest.

The last line is `ratio:`, the share of the goal that the worst command takes (1 or less: all met),
by wall time.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
JOB = ROOT / "jobs" / "quickstart.yaml"
GOALS = {"plan": ("imports", 1.2), "run": ("imports", 1.6), "submit": ("both", 2.0)}
Seconds = tuple[float, float]
"""Wall and CPU."""
NEW_DB = "sqlite:///{}"
"""The URI of a database that is not there, by its file."""
MOST = 12
"""Packages that are named."""


def commands(folder: Path) -> dict[str, list[str]]:
    """The command line of each figure; runs go to `folder`."""
    ours = [sys.executable, "-m", "raysearch.cli"]
    kept = ["--store", str(folder), "--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    return {
        "imports": [sys.executable, "-c", "import torch, transformers"],
        "model": [sys.executable, "-c", "import transformers.modeling_utils"],
        "ray": [sys.executable, "-c", "import ray; ray.init()"],
        "plan": [*ours, "plan", str(JOB)],
        "run": [*ours, "run", str(JOB), "--pool", "local", *kept],
        "submit": [*ours, "submit", str(JOB), *kept],
        "untracked": [
            *ours,
            "run",
            str(JOB),
            "--pool",
            "local",
            *kept[:2],
            "--tracking-uri",
            "none",
        ],
        "new_db": [*ours, "run", str(JOB), "--pool", "local", *kept[:3], NEW_DB],
    }


def imports_by_package(command: list[str]) -> tuple[dict[str, float], float]:
    """Runs a Python command once; returns the seconds that the modules of each package took to
    import, without what they import in turn, and those of the whole command."""
    began = time.perf_counter()
    done = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        check=True,
        capture_output=True,
        text=True,
    )
    whole, seconds = time.perf_counter() - began, Counter[str]()
    for line in done.stderr.splitlines():
        parts = line.removeprefix("import time:").split("|")
        if len(parts) == 3 and parts[0].strip().isdigit():
            seconds[parts[2].strip().partition(".")[0]] += int(parts[0]) / 1e6
    return dict(seconds.most_common(MOST)), whole


def seconds_of(command: list[str]) -> Seconds:
    """Runs a command; returns its wall and CPU seconds. Raises: CalledProcessError."""
    if command[-1] == NEW_DB:
        with tempfile.TemporaryDirectory() as folder:
            return seconds_of([*command[:-1], NEW_DB.format(Path(folder) / "mlflow.db")])
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Prints the figures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--only", default="plan,run,submit")
    chosen = options.parse_args()
    goals = {name: GOALS[name] for name in chosen.only.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        lines = commands(Path(folder))
        wanted = ["imports", "model", *(["ray"] if "submit" in goals else []), *goals]
        wanted += ["untracked", "new_db"] if "run" in goals else []
        taken: dict[str, list[Seconds]] = {name: [] for name in wanted}
        for name in goals:
            wall, cpu = seconds_of(lines[name])
            print(f"{name:<9} {wall:6.1f} s wall  {cpu:6.1f} s CPU, the first time")
        for _ in range(chosen.runs):
            for name in wanted:
                taken[name].append(seconds_of(lines[name]))
        parts, whole = imports_by_package(lines["run"]) if "run" in goals else ({}, 0.0)
    walls, cpus = (
        {name: median(each[part] for each in found) for name, found in taken.items()}
        for part in (0, 1)
    )
    for found in (walls, cpus):
        found["both"] = found["imports"] + found.get("ray", 0.0)
    for name in wanted:
        print(f"{name:<9} {walls[name]:6.1f} s wall  {cpus[name]:6.1f} s CPU")
    for name, (base, goal) in goals.items():
        ratios = walls[name] / walls[base], cpus[name] / cpus[base]
        print(f"{name:<9} {ratios[0]:6.2f} of {base} (goal {goal}), by CPU {ratios[1]:.2f}")
    if parts:
        named = ", ".join(f"{name} {spent:.1f}" for name, spent in parts.items())
        rest = whole - sum(parts.values())
        print(f"of one run, {whole:.1f} s: imports of {named}; all else {rest:.1f}")
    print(f"ratio: {max(walls[n] / walls[base] / goal for n, (base, goal) in goals.items()):.2f}")


if __name__ == "__main__":
    main()
