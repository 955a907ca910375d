"""Plants faults, one at a time, in a copy of this tree, and looks whether the tests of the fault's
own room see it: `make mutants`.

    python scripts/mutants.py                    # all
    python scripts/mutants.py 3 17 --workers 1   # some of them, by number

Invariants: the tree itself is never touched; a fault that is caught made a test fail, and without
any fault the same tests pass; it is an error if one survives, or if its tests do not end.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
SECONDS = 300
"""The most processor time that one of the tests of a fault may take; it may take three times as long
on the clock, for a machine that does other things too is slow."""


_UNWRITTEN = "PYTHONDONTWRITEBYTECODE"
"""Set while a fault is in the tree, whose byte code must not stay; what was compiled before
serves."""
OUTCOMES = {True: "caught", False: "SURVIVED", None: "NO END"}
"""What is printed for each value that `caught` returns."""


@dataclass(frozen=True)
class Mutant:
    """A fault: in raysearch/`file`, `new` stands where `old` stood. `tests`: files and folders of
    tests/ some test of which fails then; they run in this order."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


STATS = ("stats",)
REPLAY = ("engine/execution/test_replay.py", "engine/execution/test_executors.py")
PATCHING = ("engine/patching",)
STORE, STORAGE = ("store",), ("storage", "store")

MUTANTS = (
    # The promise on errors.
    Mutant(
        "stats/anytime_test.py",
        "math.log(self.hypotheses / self.false_accept)",
        "math.log(1 / self.false_accept)",
        STATS,
    ),
    Mutant("stats/anytime_test.py", "-math.log(self.miss)", "-math.log(2 * self.miss)", STATS),
    Mutant(
        "stats/anytime_test.py",
        "_exact_decimal(self.threshold) - _exact_decimal(self.indifference)",
        "_exact_decimal(self.threshold) + _exact_decimal(self.indifference)",
        STATS,
    ),
    Mutant(
        "stats/match_test.py",
        "math.floor(low * population)",
        "math.floor(low * population) - 1",
        STATS,
    ),
    Mutant(
        "stats/match_test.py",
        "(n - s) * math.log1p(-theta)",
        "(n - s + 1) * math.log1p(-theta)",
        STATS,
    ),
    Mutant(
        "stats/match_test.py",
        "log_choose(population - n, m - s)",
        "log_choose(population - n + 1, m - s)",
        STATS,
    ),
    Mutant(
        "stats/betting_test.py",
        "before = np.cumsum(scores, axis=-1) - scores",
        "before = np.cumsum(scores, axis=-1)",
        STATS,
    ),
    Mutant("stats/betting_test.py", "np.where(broken, np.inf,", "np.where(holds, np.inf,", STATS),
    Mutant("stats/evidence.py", "following < last", "following <= last", ("stats", "search")),
    # What is judged by it.
    Mutant(
        "search/criteria.py",
        "miss=test.miss / 2",
        "miss=test.miss",
        ("search/test_criteria.py", "search"),
    ),
    Mutant(
        "search/criteria.py",
        "min(up, keep_up)",
        "max(up, keep_up)",
        ("search/test_criteria.py", "search"),
    ),
    Mutant(
        "proposers/base.py",
        "return size * generation * (generation + 1) if k is None",
        "return size if k is None",
        ("proposers", "search"),
    ),
    Mutant(
        "proposers/base.py",
        "self._proposed += len(proposed)",
        "self._proposed += len(hypotheses)",
        ("proposers", "search"),
    ),
    Mutant(
        "search/trial.py",
        "seen.added(self.evidence, counted)",
        "seen.added(self.evidence, counted + counted)",
        ("search/test_search.py", "search"),
    ),
    Mutant(
        "search/trial.py",
        "wanted != pair.base",
        "wanted == pair.base",
        ("search/test_search.py", "search"),
    ),
    Mutant(
        "search/screening.py",
        "e.read(base) == e.base and all(",
        "e.read(base) == e.base or all(",
        ("search/test_search.py", "search"),
    ),
    Mutant(
        "search/score_scale.py",
        "(d + self.scale) /",
        "(d - self.scale) /",
        ("search/test_score_scale.py", "search"),
    ),
    Mutant(
        "search/scheduler.py",
        "QUARANTINE = 3",
        "QUARANTINE = 2",
        ("search/test_search.py", "search"),
    ),
    Mutant(
        "search/scheduler.py",
        "self._requeue.extend(_halves(out.group) if",
        "self._requeue.extend(_halves(out.group)[:1] if",
        ("search/test_search.py", "search"),
    ),
    Mutant(
        "search/verdicts.py",
        "self._tally[decided.verdict] += not control",
        "self._tally[decided.verdict] += 1",
        ("search/test_search.py", "search"),
    ),
    Mutant(
        "search/successive_halving.py",
        "-int(-len(fits) * self._keys.keep // 1)",
        "int(len(fits) * self._keys.keep)",
        ("search/test_successive_halving.py", "search"),
    ),
    Mutant(
        "search/successive_halving.py",
        "min(done, key=lambda f: f.rank)",
        "max(done, key=lambda f: f.rank)",
        ("search/test_successive_halving.py", "search"),
    ),
    # What is asked, and of what.
    Mutant(
        "core/hypothesis.py",
        "return None if layer == 0 and not is_in_layers(component) else layer",
        "return layer",
        ("core", "job"),
    ),
    Mutant(
        "causal/model.py",
        "{name: self.run(source)[name]",
        "{name: self.run(base)[name]",
        ("causal",),
    ),
    Mutant(
        "engine/encoding/positions.py",
        '"align_right": at[len(at) - fewest :]',
        '"align_right": at[:fewest]',
        ("engine/encoding",),
    ),
    # What is patched.
    Mutant(
        "engine/execution/cached_runs.py",
        "return tokens - first",
        "return tokens",
        ("engine/execution",),
    ),
    Mutant(
        "engine/patching/edits.py",
        "of_tokens[:, on_device(features, seen.device)]",
        "of_tokens[:, : len(features)]",
        PATCHING,
    ),
    Mutant(
        "engine/patching/operations.py",
        "* direction / direction.norm()",
        "* direction",
        ("engine/patching/test_placebo.py",),
    ),
    Mutant(
        "engine/networks/fused_projections.py",
        "torch.arange(start, start + width)",
        "torch.arange(start + 1, start + width + 1)",
        ("engine/networks",),
    ),
    Mutant(
        "engine/networks/network.py",
        "given[0].contiguous()",
        "given[0]",
        ("engine/execution/test_only_what_is_needed.py",),
    ),
    Mutant(
        "engine/networks/network.py",
        "without_product(self.head)",
        "without_product(None)",
        ("engine/execution/test_only_what_is_needed.py",),
    ),
    Mutant(
        "engine/execution/partial_attention.py",
        "difference = total - own_total",
        "difference = own_total - total",
        ("engine/execution/test_prefix.py",),
    ),
    Mutant(
        "engine/execution/partial_attention.py",
        "    if products == 1:",
        "    if products:",
        ("engine/execution/test_prefix.py",),
    ),
    Mutant(
        "engine/execution/evaluate_swaps.py",
        "wave[list(part)], outputs),",
        "wave, outputs),",
        ("engine/execution/test_wave_costs.py",),
    ),
    Mutant(
        "engine/execution/wave_cache.py",
        "if layer_idx in self.shared or not self._start:",
        "if not self._start:",
        ("engine/execution/test_prefix.py", "engine/execution/test_wave_costs.py"),
    ),
    Mutant(
        "engine/execution/wave.py",
        '"residual" if self.after else "block_input"',
        '"block_input" if self.after else "residual"',
        REPLAY,
    ),
    Mutant(
        "engine/execution/answer_scores.py",
        "/ total.square()",
        "/ total",
        ("engine/execution/test_answer_scores.py",),
    ),
    Mutant(
        "engine/featurizers/linear_subspace.py",
        "return features, vectors - features @ directions.mT",
        "return features, vectors",
        ("engine/featurizers",),
    ),
    Mutant(
        "engine/execution/wave_executor.py",
        "self._deepest = swaps.take(rows).sources()",
        "self._deepest = {}",
        ("engine/execution/test_swaps.py",),
    ),
    Mutant(
        "engine/execution/tensor_executor.py",
        "if self._runs is not swaps.runs or self._state != self._cache.state:",
        "if self._runs is not swaps.runs:",
        ("engine/execution/test_tensor_executor.py",),
    ),
    Mutant(
        "engine/training/gradient_check.py",
        "if error is None and all(off <= self._allowed for off in offs):",
        "if error is None:",
        ("engine/training/test_gradient_check.py",),
    ),
    Mutant(
        "engine/training/batches.py",
        "every[drawn[start : start + stop - first]]",
        "every[drawn[: stop - first]]",
        ("engine/training",),
    ),
    # What is kept.
    Mutant("store/journal.py", "for driver in sorted(counts):", "for driver in counts:", STORE),
    Mutant("store/journal.py", '_with_checksum(text[:-_CHECKSUM_LENGTH] + b"}"):', "text:", STORE),
    Mutant("storage/digests_json.py", "plain[_SUM] != checksum(plain)", "not plain[_SUM]", STORAGE),
    Mutant("storage/atomic_write.py", "os.O_NOFOLLOW | os.O_CLOEXEC", "os.O_CLOEXEC", STORAGE),
    Mutant(
        "store/journal_codec.py",
        "if value is None and name in _SPARSE:",
        "if name in _SPARSE:",
        STORE,
    ),
    Mutant(
        "job/job.py",
        "^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$",
        "^[A-Za-z0-9_./-]{1,80}$",
        ("job",),
    ),
    # What all tests accept together; weights, futility, tails, thresholds.
    Mutant(
        "stats/false_discovery.py",
        "if excess >= -math.log(k)",
        "if excess >= -2 * math.log(k)",
        ("stats/test_false_discovery.py", "search/test_selection.py"),
    ),
    Mutant(
        "stats/false_discovery.py",
        "min(1.0, share * selected)",
        "min(1.0, share * selected**2)",
        ("stats/test_false_discovery.py", "search/test_selection.py"),
    ),
    Mutant(
        "search/judge.py",
        "e_by_level(change.level / whole, of)",
        "e_by_level(change.level, of)",
        ("search/test_selection.py",),
    ),
    Mutant(
        "search/judge.py",
        "up - criterion.change.accept_at if up >= alone",
        "up - alone if up >= alone",
        ("search/test_selection.py",),
    ),
    Mutant(
        "search/selection.py",
        "*[math.inf] * len(self._accepted)",
        "*[math.inf] * len(self._undecided)",
        ("search/test_selection.py",),
    ),
    Mutant(
        "store/retractions.py",
        'return self._to_come["selection", ""] > 0',
        "return False",
        ("test_check_run.py",),
    ),
    Mutant(
        "proposers/weights.py",
        "least = 1 / (math.e",
        "least = 1.2 / (math.e",
        ("search/test_weights.py",),
    ),
    Mutant(
        "search/criteria.py",
        "return likely < self.change.futility",
        "return likely < 2 * self.change.futility",
        ("stats/test_futility.py", "test_check_run.py"),
    ),
    Mutant(
        "stats/match_test.py",
        "spike / (spike + (1 - spike) / (n + 1)) if s == n",
        "spike / (spike + (1 - spike) / (n + 1)) if s == 0",
        ("stats/test_futility.py", "test_check_run.py"),
    ),
    Mutant(
        "stats/exact_test.py",
        "binom.logsf(s - 1, n,",
        "binom.logsf(s, n,",
        ("stats/test_exact_test.py",),
    ),
    Mutant(
        "stats/exact_test.py",
        "hypergeom.cdf(s, population, possible, n) > side",
        "hypergeom.cdf(s, population, possible, n) > 2 * side",
        ("stats/test_exact_test.py",),
    ),
    Mutant(
        "search/criteria.py",
        "if criterion.verdict(change, keep) != name:",
        "if criterion.verdict(change, keep) not in (name, None):",
        ("search/test_thresholds.py",),
    ),
    # Claims: later generations, and new values.
    Mutant(
        "proposers/base.py",
        "size * generation * (generation + 1)",
        "size * generation",
        ("search/test_generations.py", "search"),
    ),
    Mutant(
        "search/pair_blocks.py",
        "pairs = pairs[size:]",
        "pairs = pairs[size // 2 :]",
        ("search/test_generations.py", "search"),
    ),
    Mutant(
        "engine/networks/half_precision.py",
        "in_blocks=multiplies_in_tiles(dtype)",
        "in_blocks=False",
        ("engine/networks/test_half_precision.py",),
    ),
    Mutant(
        "stats/betting_test.py",
        "log_sum(products) - math.log(MATCHINGS)",
        "log_sum(products)",
        ("search/test_new_values.py", "search"),
    ),
    Mutant(
        "causal/value_matchings.py",
        "start = end",
        "start = 0",
        ("search/test_new_values.py", "search"),
    ),
)


def planted(mutant: Mutant, tree: Path) -> str:
    """Returns the text of the mutant's file in `tree` with the fault in it.

    Raises: ValueError where the text that it replaces does not stand there exactly once.
    """
    text = (tree / "raysearch" / mutant.file).read_text()
    found = text.count(mutant.old)
    if found != 1:
        raise ValueError(f"raysearch/{mutant.file}: has {found} times {mutant.old!r}; need once")
    return text.replace(mutant.old, mutant.new)


def caught(mutant: Mutant, tree: Path) -> bool | None:
    """Returns whether a test of the mutant's room fails when the fault is in `tree`, None if the
    tests do not end in `SECONDS`; the fault is out again then."""
    file = tree / "raysearch" / mutant.file
    whole = file.read_text()
    file.write_text(planted(mutant, tree))
    try:
        return not passes(tree, mutant.tests, SECONDS)
    except subprocess.TimeoutExpired:
        return None
    finally:
        file.write_text(whole)


def passes(
    tree: Path, tests: Sequence[str], seconds: float | None = None, shown: bool = False
) -> bool:
    """Returns whether tests of `tree` pass. `shown`: where they do not, pytest's last words are
    printed, and what Python compiles stays.

    Raises: RuntimeError where pytest itself goes wrong, as for tests that are not there;
        subprocess.TimeoutExpired where one of `tests` takes more than `seconds`.
    """
    return all(_passes(tree, name, seconds, shown) for name in tests)


def _passes(tree: Path, name: str, seconds: float | None, shown: bool) -> bool:
    """Runs one file or folder of tests by itself: pytest would put a file within a folder that is
    named too at its place in that folder."""
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-m", "not slow"]
    command = [*pytest, "-p", "no:cacheprovider", f"tests/{name}"]
    env = {**os.environ, "PYTHONPATH": str(tree), **({} if shown else {_UNWRITTEN: "1"})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tree, env=env, **pipes) as run:
        if seconds is not None:
            resource.prlimit(run.pid, resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
        try:
            stdout, stderr = run.communicate(timeout=seconds and 3 * seconds)
        except subprocess.TimeoutExpired:
            run.kill()
            raise
    if run.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise subprocess.TimeoutExpired(command, seconds or 0)
    if run.returncode not in (0, 1, 2):  # 2: a file of tests cannot be imported
        raise RuntimeError(f"pytest tests/{name}: {stdout[-2000:]}{stderr[-2000:]}")
    if shown and run.returncode:
        print(stdout[-4000:], file=sys.stderr)
    return run.returncode == 0


def copied(to: Path) -> Path:
    """Copies what git tracks to the folder `to`, and links the models."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    if (ROOT / "models").exists():
        (to / "models").symlink_to((ROOT / "models").resolve())
    subprocess.run(["git", "init", "--quiet", str(to)], check=True)  # tests list what is tracked
    subprocess.run(["git", "add", "--all"], cwd=to, check=True)
    return to


def tried(numbers: Sequence[int], workers: int) -> Iterator[tuple[int, bool | None, float]]:
    """Yields the number of each fault, what `caught` returns for it, and the seconds that took."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for worker in range(workers):
            trees.put(copied(Path(folder) / str(worker)))

        def sound(room: str) -> bool:
            tree = trees.get()
            try:
                return passes(tree, [room], shown=True)
            finally:
                trees.put(tree)

        def attempt(number: int) -> tuple[int, bool | None, float]:
            tree, began = trees.get(), time.monotonic()
            try:
                return number, caught(MUTANTS[number], tree), time.monotonic() - began
            finally:
                trees.put(tree)

        rooms = {room for number in numbers for room in MUTANTS[number].tests}
        whole = [room for room in sorted(rooms) if not rooms & {str(p) for p in Path(room).parents}]
        with ThreadPoolExecutor(workers) as pool:
            if not all(pool.map(sound, whole)):
                raise RuntimeError("the tests fail without any fault: mend that first")
            yield from pool.map(attempt, numbers)


def main() -> None:
    """Prints what became of each fault; exits with 1 where one survived."""
    parser = argparse.ArgumentParser(description="Plants faults and looks whether tests see them.")
    parser.add_argument("numbers", nargs="*", type=int, metavar="N")
    parser.add_argument("--workers", type=int, default=2, help="faults at once (default: 2)")
    given = parser.parse_args()
    if not set(given.numbers) <= set(range(len(MUTANTS))):
        parser.error(f"faults are numbered from 0 to {len(MUTANTS) - 1}")
    survived, began = 0, time.monotonic()
    for number, seen, seconds in tried(given.numbers or range(len(MUTANTS)), given.workers):
        mutant = MUTANTS[number]
        survived += not seen
        print(
            f"{number:2} {OUTCOMES[seen]:9} {seconds:4.0f} s  {mutant.file}: "
            f"{mutant.old!r} -> {mutant.new!r}",
            flush=True,
        )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{time.monotonic() - began:.0f} s, of processors {used.ru_utime + used.ru_stime:.0f} s, "
        "the same tests without any fault among them"
    )
    sys.exit(survived > 0)


if __name__ == "__main__":
    main()
