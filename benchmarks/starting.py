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
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
JOB = ROOT / "jobs" / "quickstart.yaml"
GOALS = {"plan": ("imports", 1.2), "run": ("imports", 1.6), "submit": ("both", 2.0)}
Seconds = tuple[float, float]
"""Wall and CPU."""


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
    }


def seconds_of(command: list[str]) -> Seconds:
    """Runs a command; returns its wall and CPU seconds. Raises: CalledProcessError."""
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
        taken: dict[str, list[Seconds]] = {name: [] for name in wanted}
        for name in goals:
            wall, cpu = seconds_of(lines[name])
            print(f"{name:<9} {wall:6.1f} s wall  {cpu:6.1f} s CPU, the first time")
        for _ in range(chosen.runs):
            for name in wanted:
                taken[name].append(seconds_of(lines[name]))
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
    print(f"ratio: {max(walls[n] / walls[base] / goal for n, (base, goal) in goals.items()):.2f}")


if __name__ == "__main__":
    main()
