"""docs/check_run.py derives of any run the verdicts that the search came to, and sees what was
falsified."""

import ast
import hashlib
import importlib
import json
import random
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from raysearch import Input, Pair
from raysearch.core.events import Continued, Encoded, Event, Retried
from raysearch.core.evidence_version import EVIDENCE_VERSION
from raysearch.core.hypothesis import Subspace
from raysearch.proposers.base import Proposer
from raysearch.proposers.refine import Refine
from raysearch.search.criteria import DecisionRule
from raysearch.search.screening import GENERATIONS
from raysearch.search.search import Search
from raysearch.storage.local import LocalFolder
from raysearch.store import journal_codec
from raysearch.store.compact import compact
from raysearch.store.ledger import RunLedger
from raysearch.store.pairs_table import write_pairs
from raysearch.store.run_folder import RunFolder
from tests.cli.conftest import QUICKSTART
from tests.once import Once
from tests.search.sick import Sick, sick_of
from tests.search.test_retry import retry, told_again
from tests.search.worlds import Cluster, World

SCRIPT = Path(__file__).parents[1] / "docs" / "check_run.py"
everything: Callable[[Path], tuple[list[str], list[str]]] = runpy.run_path(str(SCRIPT))["check"]
verdicts: Any = importlib.import_module("checking.verdicts")
DAS = (Subspace("das", 2), Subspace("das", 4), Subspace("pca", 3))


def check(run: Path) -> list[str]:
    """What differs in verdicts, intervals, levels and the selection."""
    found: list[str] = verdicts.check(run)[0]
    return found


class OpenEnded(Proposer):
    """Layer by layer, of no set that is fixed before."""

    name = "open"
    max_hypotheses = None

    def __init__(self, world: World) -> None:
        self.space = list(world.space)

    def propose(self, known: Any) -> Any:
        return self.space[known.generations * 4 : known.generations * 4 + 4]


def new_run(world: World, search: Search, k: int | None, folder: Path) -> RunFolder:
    """The folder of a run of a world, as a driver leaves it before the first event."""
    rule, wanted = world.rule, world.wanted or world.test
    claim = "these_pairs" if world.these_pairs else "sampler"
    job = {
        "test": {
            "use": "fixed" if rule.at_end else "sequential",
            "score": rule.score,
            "claim": claim,
            "threshold": world.threshold,
            "false_accept": 0.05,
            "control": "fdr" if rule.fdr else "fwer",
            "miss": 0.05,
            "indifference": 0.0,
            "keep_threshold": rule.keep_threshold,
            "above_baselines": rule.above_baselines,
            "max_pairs": world.max_pairs,
            "weights": "attribution" if rule.weighted else "even",
            "futility": world.futility,
            "reserve": rule.reserve,
            "horizon": "open" if world.more and not rule.fixed_horizon else "auto",
            "pairs": world.max_pairs if rule.at_end else None,
        },
        "pairs": {
            "test": wanted if k else -(-wanted // GENERATIONS),
            "fit": world.fit,
            "holdout": world.holdout,
            "holdout_width": world.rule.holdout_width,
            "solved_only": True,
            "kinds": rule.kinds,
        },
        "propose": {"use": "exhaustive" if k else "mine.py:Proposer"},
    }
    run = RunFolder.create(
        LocalFolder(folder),
        name="world",
        job_hash="0123456789abcdef",
        job_digest="89abcdef",
        job_text=yaml.safe_dump(job, sort_keys=False),
        evidence_version=EVIDENCE_VERSION,
    )
    run.update(
        k=k or 0, scale=search.preparation.score_scale and search.preparation.score_scale.scale
    )
    pairs, encoded = [], []
    for i, e in world.pairs.items():
        answers = {"base": e.base, **e.sources}
        pairs.append(
            Pair(
                i,
                Input(f"base {i}"),
                {"source": Input(f"source {i}")},
                {name: str(ids) for name, ids in answers.items()},
                {v: str(ids) for v, ids in e.counterfactual.items()},
                e.split,
                e.set,
                added=e.added,
            )
        )
        encoded.append(
            Encoded(
                i, (1,), {"source": (2,)}, {"last": (0,)}, {"source": {"last": (0,)}}, answers,
                e.counterfactual,
            )
        )  # fmt: skip
    write_pairs(run.folder, pairs, encoded, population=world.population)
    return run


def write(
    run: RunFolder,
    search: Search,
    told: Sequence[Event],
    asked: Retried | Continued | None = None,
) -> None:
    """What a driver does with events: journalled, told to the search, records to the tables."""
    ledger = RunLedger(run)
    if asked is not None:
        ledger.request(asked)
    for batch in ledger.replay():
        ledger.write_records(search.tell(batch))
    for event in told:
        ledger.write_events([event])
        ledger.write_records(search.tell([event]))
    ledger.close("done" if search.done else "interrupted")


def run_of(
    world: World,
    folder: Path,
    cluster: Cluster | None = None,
    proposer: Callable[[], Proposer | None] = lambda: None,
) -> Path:
    """The folder of a finished run of a world, by workers that lose and repeat."""
    cluster = cluster or Cluster(world, 3, 5, lost=0.2, twice=0.3)
    search = cluster.drive(world.search(proposer()))
    asked = proposer()
    run = new_run(
        world, search, len(world.space) if asked is None else asked.max_hypotheses, folder
    )
    write(run, world.search(proposer()), cluster.told)
    return run.path


RATES = lambda layer: (0.0, 0.5, 0.78, 0.82, 0.95, 1.0)[layer % 6]  # noqa: E731
WORLDS: dict[str, World] = {
    "swaps": World(3, rates=RATES, solved=0.9, controls=("placebo", "random_model")),
    "these pairs": World(4, these_pairs=True, rates=RATES, solved=0.8, wanted=70, max_pairs=50),
    "fixed": World(5, rates=RATES, rule=DecisionRule(at_end=True)),
    "fixed, these pairs": World(5, rates=RATES, these_pairs=True, max_pairs=60, rule=DecisionRule(at_end=True)),
    "fixed, probability": World(
        5, rates=RATES, scores=("probability",), rule=DecisionRule(score="probability", at_end=True)
    ),
    "both": World(
        6, rates=RATES, spares=lambda layer: 0.9,
        rule=DecisionRule("both", keep_threshold=0.7), threshold=0.75,
    ),
    "both, these pairs": World(7, rates=RATES, these_pairs=True, rule=DecisionRule("both")),
    "unfiltered": World(8, rates=RATES, rule=DecisionRule("unfiltered")),
    "probability": World(
        9, rates=RATES, scores=("probability",), rule=DecisionRule(score="probability")
    ),
    "logit difference": World(
        10, rates=RATES, scores=("logit_difference", "kl"), fit=20, these_pairs=True,
        rule=DecisionRule(score="logit_difference"),
    ),
    "weights": World(
        12, rates=RATES, fit=20, rule=DecisionRule(weighted=True),
        effects=lambda unit, variable: unit.site.layer / 6,
    ),
    "rate": World(
        4, layers=12, rates=lambda layer: (0.1, 0.82, 0.9, 0.97)[layer % 4], controls=("placebo",),
        rule=DecisionRule(fdr=True),
    ),
    "rate, these pairs": World(
        5, rates=RATES, these_pairs=True, max_pairs=60, rule=DecisionRule(at_end=True, fdr=True)
    ),
    "rate, both": World(
        5, rates=RATES, spares=lambda layer: 0.95, rule=DecisionRule("both", keep_threshold=0.3, fdr=True)
    ),
    "rate, probability": World(
        9, rates=RATES, scores=("probability",), rule=DecisionRule(score="probability", fdr=True)
    ),
    "rate, weights": World(
        12, rates=RATES, fit=20, rule=DecisionRule(weighted=True, fdr=True),
        effects=lambda unit, variable: unit.site.layer / 6,
    ),
    "fits": World(
        11, layers=3, rates=lambda layer: (0.5, 0.82, 0.97)[layer], subspaces=DAS, fit=20,
        controls=("arbitrary_labels", "random_subspace"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=WORLDS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(WORLDS[request.param], tmp_path_factory.mktemp("run"))


def rows(run: Path, table: str) -> list[dict[str, Any]]:
    files = sorted((run / "tables" / table).glob("*.parquet"))
    return [row for f in files for row in pq.read_table(f).to_pylist()]


@pytest.mark.slow_unless(
    written=[
        "swaps",
        "fixed, these pairs",
        "both",
        "logit difference",
        "rate",
        "rate, probability",
    ]
)
def test_all_follows_from_the_journal_under_every_rule(written: Path) -> None:
    assert {row["verdict"] for row in rows(written, "verdicts")} & {"accept", "reject"}
    assert check(written) == []


def test_all_follows_from_the_journal_of_the_quick_start(once: Once) -> None:
    run = once.searched(QUICKSTART)
    assert len(rows(run, "verdicts")) == 120
    done = subprocess.run(
        [sys.executable, SCRIPT, run], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("proposer", [OpenEnded, lambda world: Refine(world.space)])
def test_what_is_proposed_by_verdicts_follows_too(
    proposer: Callable[[World], Proposer], tmp_path: Path
) -> None:
    world = World(12, layers=9, test=900, rates=lambda layer: (0.2, 0.85, 0.97)[layer % 3])
    run = run_of(world, tmp_path, proposer=lambda: proposer(world))
    assert "accept" in {row["verdict"] for row in rows(run, "verdicts")}
    assert everything(run) == ([], [])


PARTLY = World(
    12, layers=16, test=200, fit=20, rates=lambda layer: 0.97 if layer > 10 else 0.0,
    rule=DecisionRule(weighted=True), effects=lambda unit, variable: (unit.site.layer or 0) / 16,
)  # fmt: skip


@pytest.fixture(scope="module")
def partly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with weights that proposed a part of its space alone."""
    run = run_of(
        PARTLY, tmp_path_factory.mktemp("partly"), proposer=lambda: Refine(PARTLY.space, step=4)
    )
    found = rows(run, "verdicts")
    assert len(found) < len(PARTLY.space)
    assert len({row["level"] for row in found}) > 2
    return run


def test_weights_of_a_space_in_part_follow_from_the_effects_in_the_journal(partly: Path) -> None:
    assert everything(partly) == ([], [])


def test_effects_that_were_changed_in_the_journal_or_in_their_table_are_seen(
    partly: Path, tmp_path: Path
) -> None:
    def reverse(lines: list[dict[str, Any]]) -> None:
        of = first_of(lines, "attributed")["effects"]
        of["v"] = of["v"][::-1]

    forged = Path(shutil.copytree(partly, tmp_path / "journal"))
    forge_journal(forged, reverse)
    lines = check(forged)
    assert any(line.startswith("the effect on v of ") for line in lines)
    assert any(": level is " in line for line in lines)
    forged = Path(shutil.copytree(partly, tmp_path / "table"))
    forge_table(forged, "effects", lambda found: found[0].update(effect=0.9))
    assert any(line.startswith("the effect on ") for line in check(forged))


def test_weights_that_cannot_be_derived_are_said_to_be_taken_as_told_and_are_bounded(
    partly: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(partly, tmp_path / "sets"))
    job = yaml.safe_load((run / "job.yaml").read_text())
    (run / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False) + "space:\n  units: [one]\n")
    wrong, taken = everything(run)
    assert (wrong, len(taken)) == ([], 1)
    assert taken[0].startswith("the level of each hypothesis")
    done = subprocess.run(
        [sys.executable, SCRIPT, run], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"taken as told: {taken[0]}\n")

    def double(found: list[dict[str, Any]]) -> None:
        for row in found:
            row["level"] *= 2.5

    forge_table(run, "verdicts", double)
    lines = check(run)
    assert any(": the step of its weight is " in line for line in lines)
    assert any(line.startswith("the error that all spend is ") for line in lines)


@pytest.mark.slow_unless(seed=[2, 3])
@pytest.mark.parametrize(
    ("which", "seed", "dies"),
    [("swaps", 1, True), ("swaps", 2, False), ("fits", 3, False), ("these pairs", 4, True)],
)
def test_failures_follow_and_so_does_what_a_retry_made_of_them(
    which: str, seed: int, dies: bool, tmp_path: Path
) -> None:
    world = WORLDS[which]
    ill = sick_of(world, random.Random(seed))
    sick = Sick(world, 3, seed, sick=ill, dies=dies, shaky=0.3)
    search = sick.drive(world.search())
    run = new_run(world, search, len(world.space), tmp_path)
    write(run, world.search(), sick.told)
    assert "failed" in {row["verdict"] for row in rows(run.path, "verdicts")}
    assert check(run.path) == []
    again = told_again(world, sick.told)
    retried = retry(again)
    mended = Cluster(world, 3, seed)
    mended.drive(again)
    write(run, world.search(), mended.told, retried)
    assert "failed" not in {row["verdict"] for row in rows(run.path, "verdicts")}
    selected = [row["hypothesis"] for row in rows(run.path, "selection")]
    assert len(selected) == len(set(selected)), "what was accepted before the retry is taken back"
    assert check(run.path) == []


def test_a_run_that_is_compacted_or_was_interrupted_follows_too(tmp_path: Path) -> None:
    world = WORLDS["swaps"]
    cluster = Cluster(world, 3, 6, lost=0.2, twice=0.3)
    search = cluster.drive(world.search())
    run = new_run(world, search, len(world.space), tmp_path)
    half = len(cluster.told) // 2
    write(run, world.search(), cluster.told[:half])
    assert check(run.path) == []
    journal = next((run.path / "journal").rglob("*.jsonl"))
    journal.write_bytes(journal.read_bytes() + b'{"batch":9,"entry":{"at')  # killed while it wrote
    write(run, world.search(), cluster.told[half:])
    assert list(compact(run))
    assert len(rows(run.path, "verdicts")) >= len(world.space)
    assert check(run.path) == []


# --- what was falsified


def forge_journal(run: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Changes the entries of the journal, and makes its numbers and checksums fit."""
    for file in (run / "journal").rglob("*.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        change(lines)
        texts = []
        for seq, line in enumerate(lines):
            kept = {"batch": line["batch"], "entry": line["entry"], "seq": seq}
            body = json.dumps(kept, sort_keys=True, separators=(",", ":"))
            digest = hashlib.sha256(body.encode()).hexdigest()[:16]
            texts.append(f'{body[:-1]},"sum":"{digest}"}}\n')
        file.write_text("".join(texts))


def forge_table(run: Path, table: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    files = sorted((run / "tables" / table).glob("*.parquet"))
    if table == "pairs":
        files = [run / "pairs.parquet"]
    for file in files:
        read = pq.read_table(file)
        found = read.to_pylist()
        change(found)
        pq.write_table(pa.Table.from_pylist(found, schema=read.schema), file)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(WORLDS["swaps"], tmp_path_factory.mktemp("finished"))


@pytest.fixture
def forged(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "forged"))


def first_of(lines: list[dict[str, Any]], kind: str, **of: Any) -> dict[str, Any]:
    wanted = {"type": kind, **of}.items()
    return next(line["entry"] for line in lines if wanted <= _plain(line["entry"]).items())


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in entry.items() if isinstance(v, str | int)}


def nudge(column: str, by: float) -> Callable[[list[dict[str, Any]]], None]:
    def change(found: list[dict[str, Any]]) -> None:
        row = next(row for row in found if row["verdict"] == "accept")
        row[column] += by

    return change


COLUMNS = {
    "n": 1, "matches": -1, "iia": -0.01, "low": 0.01, "high": -0.01, "evidence": 0.5, "level": 0.001,
    "keep_n": 1, "accept_to": 0.05,
}  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS)
def test_a_figure_that_was_changed_is_seen(forged: Path, column: str) -> None:
    forge_table(forged, "verdicts", nudge(column, COLUMNS[column]))
    (line,) = check(forged)
    assert f": {column} is " in line


def test_a_threshold_from_which_it_rejects_that_was_changed_is_seen(forged: Path) -> None:
    def change(found: list[dict[str, Any]]) -> None:
        next(row for row in found if row["reject_from"])["reject_from"] += 0.05

    forge_table(forged, "verdicts", change)
    (line,) = check(forged)
    assert ": reject_from is " in line


SELECTION = {
    "selected": 1,
    "fcr_level": 0.001,
    "fcr_low": 0.01,
    "fcr_high": -0.01,
    "fdr_verdict": None,
}


@pytest.mark.parametrize("column", SELECTION)
def test_a_selection_that_was_changed_is_seen(forged: Path, column: str) -> None:
    def change(found: list[dict[str, Any]]) -> None:
        row = next(row for row in found if row["selected"])
        row[column] = None if column == "fdr_verdict" else row[column] + SELECTION[column]

    forge_table(forged, "selection", change)
    (line,) = check(forged)
    assert f": {column} is " in line


def test_a_row_of_the_selection_that_was_left_out_is_seen(forged: Path) -> None:
    forge_table(forged, "selection", lambda found: found.pop(0) and None)
    lines = check(forged)
    assert any(": selected is None; " in line for line in lines)


@pytest.mark.parametrize("verdict", ["accept", "reject", "undecided", "failed"])
def test_a_verdict_that_was_changed_is_seen(forged: Path, verdict: str) -> None:
    def change(found: list[dict[str, Any]]) -> None:
        next(row for row in found if row["verdict"] != verdict)["verdict"] = verdict

    forge_table(forged, "verdicts", change)
    assert any(f": verdict is '{verdict}'; " in line for line in check(forged))


def test_an_interval_of_a_kind_of_pair_that_was_changed_is_seen(forged: Path) -> None:
    def change(found: list[dict[str, Any]]) -> None:
        found[0]["low"] += 0.01

    forge_table(forged, "sets", change)
    (line,) = check(forged)
    assert ": low is " in line


def forge_output(lines: list[dict[str, Any]]) -> None:
    """Makes a match of each output of one block that was none, or the reverse."""
    entry = first_of(lines, "measured", split="test", block=0)
    entry["outputs"] = [[0] if output == [10] else [10] for output in entry["outputs"]]


def forge_pairs(lines: list[dict[str, Any]]) -> None:
    """Measures a block on other pairs."""
    entry = first_of(lines, "measured", split="test", block=1)
    entry["pairs"] = [pair + 1 for pair in entry["pairs"]]


def forge_screening(lines: list[dict[str, Any]]) -> None:
    """Says that a pair was not solved which was."""
    said = first_of(lines, "screened", split="test", block=0)["base"]
    said[said.index([0])] = [77]


def forge_loss(lines: list[dict[str, Any]]) -> None:
    """Leaves out the first block of one intervention, and its repeats."""
    of = first_of(lines, "measured", split="test", block=0)["intervention"]
    key = {"type": "measured", "split": "test", "block": 0, "intervention": of}.items()
    lines[:] = [line for line in lines if not key <= _plain(line["entry"]).items()]


@pytest.mark.parametrize("forge", [forge_output, forge_pairs, forge_screening, forge_loss])
def test_a_journal_that_was_changed_with_its_checksums_is_seen(
    forged: Path, forge: Callable[[list[dict[str, Any]]], None]
) -> None:
    forge_journal(forged, lambda lines: None)
    assert check(forged) == [], "to write it again changes nothing"
    forge_journal(forged, forge)
    assert check(forged)


def test_a_line_that_was_changed_without_its_checksum_is_seen(forged: Path) -> None:
    file = next((forged / "journal").rglob("*.jsonl"))
    text = file.read_text()
    file.write_text(text.replace('"cpu"', '"gpu"', 1))
    assert any("a line is damaged, or lost" in line for line in check(forged))
    lines = text.splitlines(keepends=True)
    file.write_text("".join([*lines[:5], *lines[6:]]))
    assert any("a line is damaged, or lost" in line for line in check(forged))


def test_pairs_that_were_changed_are_seen(forged: Path) -> None:
    def change(found: list[dict[str, Any]]) -> None:
        for row in found[:20]:
            row["counterfactual"][0]["ids"] = [55]

    forge_table(forged, "pairs", change)
    assert check(forged)


def test_a_hypothesis_that_was_left_out_or_relabelled_is_seen(forged: Path) -> None:
    kept = {f: f.read_bytes() for f in (forged / "tables" / "hypotheses").glob("*.parquet")}

    def leave_out(found: list[dict[str, Any]]) -> None:
        del found[0]

    forge_table(forged, "hypotheses", leave_out)
    assert any("has a verdict and is no hypothesis" in line for line in check(forged))
    for file, content in kept.items():
        file.write_bytes(content)

    def relabel(found: list[dict[str, Any]]) -> None:
        for row in found:
            row["variable"] = {"v": "w", "w": "v"}[row["variable"]]

    forge_table(forged, "hypotheses", relabel)
    assert any(": verdict is " in line for line in check(forged))


def test_an_intervention_that_was_measured_and_hidden_is_seen(forged: Path) -> None:
    hidden = rows(forged, "hypotheses")[0]["intervention"]
    gone = {
        row["hypothesis"] for row in rows(forged, "hypotheses") if row["intervention"] == hidden
    }

    def hide(found: list[dict[str, Any]]) -> None:
        found[:] = [row for row in found if row["hypothesis"] not in gone]

    for table in ("hypotheses", "verdicts", "sets"):
        forge_table(forged, table, hide)
    (line,) = check(forged)
    assert line == f"{hidden}: was measured and is no hypothesis"


def test_a_k_that_is_too_small_is_seen(forged: Path) -> None:
    info = json.loads((forged / "run.json").read_text())
    (forged / "run.json").write_text(json.dumps({**info, "k": 3}))
    assert any(line.startswith("K is 3; ") for line in check(forged))


BESIDE = {
    "population": "new_values", "population_size": 7, "claim": "these_pairs", "part": 1,
    "distinct": 1, "copies": 1, "keep_iia": 0.01, "base_match_unfiltered": 0.01,
    "no_intervention_iia": 0.01,
}  # fmt: skip


@pytest.mark.parametrize("column", BESIDE)
def test_what_a_verdict_is_said_to_be_about_is_derived(forged: Path, column: str) -> None:
    def change(found: list[dict[str, Any]]) -> None:
        row, other = next(row for row in found if row["keep_n"]), BESIDE[column]
        row[column] = other if isinstance(other, str) else (row[column] or 0) + other

    forge_table(forged, "verdicts", change)
    (line,) = check(forged)
    assert f": {column} is " in line


def rename(run: Path, **changes: Any) -> None:
    """Changes what pairs.parquet says of the population."""
    read = pq.read_table(run / "pairs.parquet")
    flags = {k.decode(): v.decode() for k, v in read.schema.metadata.items()}
    flags["population"] = json.dumps({**json.loads(flags["population"]), **changes})
    pq.write_table(read.replace_schema_metadata(flags), run / "pairs.parquet")


def test_another_name_of_the_population_is_seen_though_the_verdicts_say_it_too(
    tmp_path: Path,
) -> None:
    run = run_of(WORLDS["fits"], tmp_path)

    def change(found: list[dict[str, Any]]) -> None:
        for row in found:
            row["population"] = "sampler"

    forge_table(run, "verdicts", change)
    rename(run, name="sampler")
    assert "population of pairs.parquet is 'sampler'; 'not_trained_on' follows" in check(run)


@pytest.mark.parametrize("column", ["pairs", "drawn", "used"])
def test_a_count_of_what_was_left_out_that_was_changed_is_seen(forged: Path, column: str) -> None:
    def change(found: list[dict[str, Any]]) -> None:
        row = next(row for row in found if row["split"] == "test")
        row[column] -= 1

    forge_table(forged, "dropped", change)
    assert any(line.startswith("dropped, ") for line in check(forged))


def test_a_run_of_other_rules_is_said_to_be_one(forged: Path) -> None:
    info = json.loads((forged / "run.json").read_text())
    (forged / "run.json").write_text(json.dumps({**info, "evidence_version": 99}))
    assert any(line.startswith("evidence_version is 99; ") for line in check(forged))


# --- the file itself


@pytest.mark.parametrize(
    "file", [SCRIPT, *sorted((SCRIPT.parent / "checking").glob("*.py"))], ids=lambda file: file.name
)
def test_it_is_of_short_files_that_need_little(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 250
    assert max(map(len, text.splitlines())) <= 100 + len("  # noqa: E731")
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = [n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in nodes]
    needs = {str(name).partition(".")[0] for name in names} - sys.stdlib_module_names
    assert needs <= {"numpy", "pyarrow", "checking"}


def test_the_page_that_it_is_written_from_names_every_entry_of_a_journal() -> None:
    page = (SCRIPT.parent / "reference" / "journal.md").read_text()
    assert [name for name in journal_codec._TYPES if f"`{name}`" not in page] == []
