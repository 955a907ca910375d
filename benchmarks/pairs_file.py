"""What a large file of pairs costs: CPU seconds and peak memory of `raysearch plan` on 100 lines
and on 200,000.

python benchmarks/pairs_file.py [--lines 200000] [--model models/SmolLM2-135M-Instruct]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

JOB = """\
name: pairs_file
model: {{path: {model}}}
problem: {{pairs: {file}}}
pairs: {{solved_only: false}}
space: {{layers: [0, 10], positions: [country.last, last]}}
"""


def lines(count: int) -> Iterator[str]:
    """So many pairs as JSON, every text another."""
    rng = random.Random(0)
    names = [
        f"{a}{b}"
        for a in ("Spain", "Italy", "Greece", "France", "Norway", "Poland")
        for b in ("", "ia", "land")
    ]
    for n in range(count):
        sides = []
        for i, name in enumerate(rng.sample(names, 2)):
            text = f"In the country of {name}, number {n + i}, the official capital is"
            sides.append({"text": text, "positions": {"country": [18, 18 + len(name)]}})
        answers = {"base": " Madrid", "source": " Rome"}
        yield json.dumps(
            {
                "base": sides[0],
                "source": sides[1],
                "answers": answers,
                "counterfactual": {"country": " Rome"},
            }
        )


def measured(folder: Path, count: int, model: str) -> tuple[float, float]:
    """CPU seconds and MiB at the peak of a plan on so many lines."""
    (folder / f"{count}.jsonl").write_text("\n".join(lines(count)))
    job = folder / f"{count}.yaml"
    job.write_text(JOB.format(model=model, file=f"{count}.jsonl"))
    command = [sys.executable, "-m", "raysearch.cli", "plan", str(job)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Prints both, and the difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few = measured(Path(folder), 100, str(Path(given.model).resolve()))
        many = measured(Path(folder), given.lines, str(Path(given.model).resolve()))
    print(f"{'lines':>8}  {'CPU s':>6}  {'MiB':>6}")
    for count, (seconds, peak) in ((100, few), (given.lines, many)):
        print(f"{count:>8}  {seconds:6.1f}  {peak:6.0f}")
    print(f"{'more':>8}  {many[0] - few[0]:6.1f}  {many[1] - few[1]:6.0f}")


if __name__ == "__main__":
    main()
